"""Writes down what the pipeline does: metrics, progress, and the totals of summary.json.

The one place through which a run's numbers leave it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from configs.wire import Uid
from orchestration.evaluator import Scores
from orchestration.exporter import MetricsHub
from orchestration.ledger import Ledger
from orchestration.progress import Progress
from orchestration.replay import Lease
from orchestration.run_folder import RunFolder
from orchestration.weight_sync import SyncRecord

_TOTALS = ("pairs", "learned_tokens", "sampled_tokens", "drift_max", "losses")
"""What a run adds up over its steps, and a resumed one goes on adding to."""


@dataclass
class Recorder:
    """Collects one run's steps; the hub and the display may outlive it."""

    hub: MetricsHub
    progress: Progress
    ledger: Ledger
    folder: RunFolder
    pairs: int = 0
    learned_tokens: int = 0
    sampled_tokens: int = 0
    drift_max: float = 0.0
    losses: list[float] = field(default_factory=list)
    _before: float = 0.0
    """Seconds of the loops in earlier lives of the run."""
    _began: float | None = None
    _ended: float = 0.0
    _cpu: float = 0.0
    """Of the loops' thread, when they began, and how many steps were made since."""
    _steps: int = 0

    def began(self, step: int) -> None:
        """Start the clock that throughput is measured by: the loops are about to turn."""
        self.hub.set("step", step)
        self._began = self._ended = time.monotonic()
        self._cpu, self._steps = time.thread_time(), 0

    def resumed(self) -> None:
        """Leave the time since the last step, an evaluation's, out of every rate."""
        pause = time.monotonic() - self._ended
        self._began = (self._began or self._ended) + pause
        self._ended += pause

    def stepped(
        self,
        step: int,
        lease: Lease,
        outcome: Mapping[str, float],
        pushed: SyncRecord | None,
        queue: Mapping[str, float],
    ) -> None:
        """Record one step that is learned, acknowledged and pushed."""
        now = time.monotonic()
        seconds, self._ended = now - self._ended, now
        self._steps += 1
        self.losses.append(outcome["loss"])
        self.pairs += len(lease.uids)
        self.learned_tokens += int(outcome["tokens"])
        sampled = round(outcome.get("response_length_student", 0.0) * len(lease.uids))
        self.sampled_tokens += sampled
        if pushed and "logprob_drift" in outcome:
            self.drift_max = max(self.drift_max, outcome["logprob_drift"])
        values = {**outcome, "step": step, "seconds": seconds, "lag": max(lease.lags, default=0)}
        self.hub.record_step(step, values, lease.lags, self.ledger.balance(), queue)
        self.hub.set("epoch", max(uid.epoch for uid in lease.uids))
        self.hub.inc("tokens", sampled, role="sampler")
        self.hub.set("weight_version", step, role="learner")
        if pushed:
            self._pushed(pushed)
        self.progress.update({**values, "depth": queue.get("depth", 0)})
        self.folder.status("running", step=step)

    def _pushed(self, pushed: SyncRecord) -> None:
        self.hub.observe("sync_seconds", pushed.seconds)
        self.hub.inc("weight_sync", pushed.nbytes)
        self.hub.set("weight_probe_difference", pushed.probe_difference)
        self.hub.set("weight_version", pushed.version, role="sampler")

    def skipped(self, step: int, uids: Sequence[Uid], why: str) -> None:
        """Record a step that was not made, and leave what it was about for inspection."""
        self.hub.inc("skipped_steps")
        self.hub.inc("nonfinite")
        self.progress.announce(f"a step after step {step} is skipped: {why}")
        self.folder.dump(
            f"nonfinite-after-step-{step}.json", {"why": why, "uids": [str(uid) for uid in uids]}
        )

    def poisoned(self, uids: Sequence[Uid]) -> None:
        """Record tuples that the queue refused for a log-probability that is no number."""
        self.hub.inc("nonfinite", len(uids))

    def teacher_failed(self, uids: Sequence[Uid], why: str) -> None:
        """Record prompts to which the teacher gave no usable answer."""
        self.hub.inc("teacher_errors", len(uids))
        named = ", ".join(str(uid) for uid in uids)
        self.progress.announce(f"dropped {named}: {why}")

    def state(self) -> dict[str, Any]:
        """Return the totals so far, as plain JSON."""
        totals = {name: getattr(self, name) for name in _TOTALS}
        now = self._ended - (self._began or self._ended)
        return {"totals": totals, "seconds": self._before + now}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the totals that ``state`` returned; empty: from nothing."""
        fresh = {field.name: field for field in fields(self)}
        for name in _TOTALS:
            first = [] if name == "losses" else fresh[name].default
            setattr(self, name, state["totals"][name] if state else first)
        self._before = state["seconds"] if state else 0.0

    def evaluated(self, when: str, step: int, scores: Scores) -> None:
        """Record one evaluation."""
        self.hub.evaluated(when, step, scores.rounded())
        quality = ", ".join(f"{key} {value:g}" for key, value in scores.rounded().items())
        self.progress.announce(f"evaluation {when} (step {step}): {quality}")

    def sampled(self, rows: Sequence[Mapping[str, Any]], *, show: bool) -> None:
        """Record the generations of one evaluation; ``show``: print them, too."""
        self.folder.samples(rows)
        self.hub.feed.samples(rows)
        for row in rows if show else ():
            said = f"sample {row['when']} (step {row['step']})"
            self.progress.announce(f"{said}\n  prompt: {row['prompt']!r}\n  {row['response']!r}")

    def throughput(self) -> dict[str, float]:
        """Return the ``throughput`` section of summary.json, per second of the loops."""
        seconds = max(self._before + self._ended - (self._began or self._ended), 1e-9)
        return {
            "pairs_per_second": round(self.pairs / seconds, 3),
            "sampled_tokens_per_second": round(self.sampled_tokens / seconds, 1),
            "learned_tokens_per_second": round(self.learned_tokens / seconds, 1),
            "driver_thread_seconds_per_step": round(
                (time.thread_time() - self._cpu) / max(1, self._steps), 6
            ),
        }
