"""The numbers that a part's own process knows: where its seconds go, what memory it holds."""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from configs.metrics import ROLE_METRICS
from configs.monitoring import MonitoringConfig
from orchestration.busy_clock import BusyClock
from orchestration.metric_store import MetricStore
from orchestration.metrics_server import MetricsServer

PORT_STEPS = {"sampler": 0, "teacher": 10, "learner": 20, "offline": 30, "reference": 31}
"""Role → how far behind ``monitoring.role_port`` its port is: the same on every machine, so that
whoever scrapes pods knows it."""


class RoleName(NamedTuple):
    """``sampler-0``, taken apart."""

    role: str
    replica: str

    @classmethod
    def of(cls, name: str) -> "RoleName":
        """Take a part's name apart; one without a number is the only one."""
        role, _, replica = name.partition("-")
        return cls(role, replica or "0")


class RoleMetrics(Collector):
    """Reads clocks whenever somebody scrapes; a part that works need not be asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clocks: dict[str, BusyClock] = {}

    def add(self, name: str, clock: BusyClock) -> None:
        """Show the clock of ``name``, such as ``sampler-0``; a later one takes its place."""
        with self._lock:
            self._clocks[name] = clock

    def collect(self) -> Iterable[Family]:
        """Return the metrics; called by the registry at each scrape."""
        store = MetricStore(ROLE_METRICS)  # a new one: what a clock has forgotten is gone
        with self._lock:
            clocks = dict(self._clocks)
        for name, clock in clocks.items():
            _read(store, RoleName.of(name), clock)
        return store.collect()


def _read(store: MetricStore, name: RoleName, clock: BusyClock) -> None:
    reading, who = clock.read(), name._asdict()
    for activity, seconds in reading.busy.items():
        store.set("busy_seconds", seconds, {**who, "activity": activity})
    for awaited, seconds in reading.idle.items():
        store.set("idle_seconds", seconds, {**who, "waiting_for": awaited})
    store.set("waiting_seconds", reading.waiting_seconds, who)


class RoleExporter:
    """Serves one part's numbers from the process that it has to itself."""

    def __init__(self, config: MonitoringConfig, name: str, clock: BusyClock) -> None:
        metrics = RoleMetrics()
        metrics.add(name, clock)
        registry = CollectorRegistry()
        registry.register(metrics)
        ProcessCollector(registry=registry)
        first = config.role_port and config.role_port + PORT_STEPS[RoleName.of(name).role]
        self._server = MetricsServer(registry, host=config.host, port=first)

    @property
    def port(self) -> int | None:
        """The port really served on; None: none could be opened."""
        return self._server.port
