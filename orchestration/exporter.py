"""The one place that numbers leave a run by: Prometheus, and `metrics.jsonl`."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from configs.metrics import CATALOGUE, DRIVER_METRICS, QUEUE_STATISTICS, series_of
from configs.monitoring import MonitoringConfig
from orchestration.account import Balance
from orchestration.busy_clock import Span
from orchestration.live import LiveFeed
from orchestration.metric_store import MetricStore
from orchestration.metrics_log import MetricsLog
from orchestration.metrics_server import MetricsServer
from orchestration.timeline import Timeline
from orchestration.trackers import Trackers
from orchestration.versions import versions

_LOG = logging.getLogger(__name__)
LOG_NAME = "metrics.jsonl"
DRAWN = ("queue_depth", "queue_leased", "lag", "loss")
"""A step's numbers that the timeline draws as curves."""


class MetricsHub:
    """Takes values by the catalogue's keys; serves the newest, and logs each step's.

    A key that the catalogue lacks, a wrong label or a wrong kind is an AssertionError (or
    KeyError, for a step's statistics): the catalogue is the whole list.
    """

    def __init__(self, config: MonitoringConfig, folder: Path | None = None) -> None:
        """Open the port, and the log in ``folder`` if one is given."""
        self._store = MetricStore(DRIVER_METRICS)
        self._registry = CollectorRegistry()
        self._registry.register(self._store)
        ProcessCollector(registry=self._registry)
        self._host = config.host
        self.feed = LiveFeed()
        """What the live page shows."""
        self._server = MetricsServer(
            self._registry, host=config.host, port=config.port, feed=self.feed
        )
        self._log: MetricsLog | None = None
        self._wants_timeline = config.timeline
        self._timeline: Timeline | None = None
        self._trackers: Trackers | None = None
        if folder:
            self.log_to(folder)
        self.set("build", 1, **versions())

    @property
    def port(self) -> int | None:
        """The port really served on; None: none could be opened."""
        return self._server.port

    @property
    def url(self) -> str | None:
        """Where the newest values are; None: nowhere."""
        port = self._server.port
        return f"http://{self._host}:{port}/metrics" if port else None

    @property
    def page_url(self) -> str | None:
        """Where a person looks; None: nowhere."""
        return self.url.removesuffix("metrics") if self.url else None

    def log_to(self, folder: Path) -> None:
        """Begin a stage, or the run itself: all numbers are its own from now on, and so are
        `FOLDER/metrics.jsonl` and the timeline, if there is to be one.
        """
        self._close_files()
        self._store.reset()
        self.set("build", 1, **versions())
        self.set("stage", 1, stage=folder.name)
        self._log = MetricsLog(folder / LOG_NAME)
        self._timeline = Timeline(folder) if self._wants_timeline else None
        self.feed.stage(folder.name)

    def show(self, metrics: Collector) -> None:
        """Serve these, too: of parts that live in this process."""
        self._registry.register(metrics)

    def track(self, trackers: Trackers) -> None:
        """From now on tell these, too; whoever opened them closes them."""
        self._trackers = trackers

    def evaluated(self, when: str, step: int, scores: Mapping[str, float]) -> None:
        """Record one evaluation: ``before``, ``after`` or in between, or the ``teacher``'s."""
        model = "teacher" if when == "teacher" else "student"
        for score, value in scores.items():
            self.set("evaluation_score", value, score=score, model=model)
        self.feed.evaluated(when, step, scores)
        if self._trackers:
            self._trackers.evaluated(model, step, scores)

    def spans(self, name: str, spans: Sequence[Span]) -> None:
        """Take what a part did since the last time, and waited for."""
        self._draw(lambda timeline: timeline.spans(name, spans))

    def set(self, key: str, value: float, **labels: str) -> None:
        """Set a gauge, or a counter whose total somebody else keeps. NaN stays NaN."""
        self._store.set(key, value, labels)

    def inc(self, key: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self._store.inc(key, amount, labels)

    def observe(self, key: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._store.observe(key, value, labels)

    def record_step(
        self,
        step: int,
        values: Mapping[str, float],
        lags: Sequence[int] = (),
        balance: Balance | None = None,
        queue: Mapping[str, float] | None = None,
    ) -> None:
        """Record one step: its statistics, its tuples' lags, the ledger and the queue.

        Writes one line of `metrics.jsonl`, the queue's statistics under ``queue_<key>``.
        """
        for statistic, value in {**values, "step": step}.items():
            key, labels = series_of(statistic)
            self._record(key, value, labels)
        for lag in lags:
            self.observe("policy_lag", lag)
        if balance is not None:
            self._record_balance(balance)
        queue = queue or {}
        for statistic, (key, labels) in QUEUE_STATISTICS.items():
            if statistic in queue:
                self.set(key, queue[statistic], **labels)
        waiting = {f"queue_{key}": value for key, value in queue.items()}
        told = {**values, **waiting, "step": step, "time": round(time.time(), 3)}
        if self._log:
            self._log.write(**told)
        levels = {key: told[key] for key in DRAWN if key in told}
        self._draw(lambda timeline: timeline.levels(told["time"], levels))
        if self._trackers:
            self._trackers.stepped(step, {**values, **waiting})
        self.feed.step(told)

    def close(self) -> None:
        """Free the port and close the log; may be called twice."""
        self._server.close()
        self._close_files()

    def _draw(self, work: Callable[[Timeline], None]) -> None:
        """Add to the timeline; a full disk ends it, and not the run."""
        if self._timeline:
            try:
                work(self._timeline)
            except OSError as error:
                _LOG.warning("the timeline ends here: %s", error)
                self._timeline = None

    def _close_files(self) -> None:
        if self._log:
            self._log.close()
        self._draw(lambda timeline: timeline.close())

    def _record(self, key: str, value: float, labels: Mapping[str, str]) -> None:
        kind = CATALOGUE[key].kind
        write = {"counter": self.inc, "histogram": self.observe}.get(kind, self.set)
        write(key, value, **labels)

    def _record_balance(self, balance: Balance) -> None:
        self.set("tuples", balance.issued, state="issued")
        self.set("in_flight", balance.in_flight)
        self.set("unaccounted", balance.unaccounted)
        self.set("tuples", balance.consumed, state="consumed")
        for reason, count in balance.dropped.items():
            self.set("dropped", count, reason=reason)
