"""Writes down what the pipeline does: metrics, progress, and the totals of summary.json.

The one place through which a run's numbers leave it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.evaluator import Scores
from orchestration.exporter import MetricsHub
from orchestration.ledger import Ledger
from orchestration.progress import Progress
from orchestration.replay import Lease
from orchestration.weight_sync import SyncRecord


@dataclass
class Recorder:
    """Collects one run's steps; the hub and the display may outlive it."""

    hub: MetricsHub
    progress: Progress
    ledger: Ledger
    pairs: int = 0
    learned_tokens: int = 0
    sampled_tokens: int = 0
    drift_max: float = 0.0
    losses: list[float] = field(default_factory=list)
    _began: float | None = None
    _ended: float = 0.0

    def began(self) -> None:
        """Start the clock that throughput is measured by: the first loop is about to turn."""
        self._began = self._ended = time.monotonic()

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
        self.losses.append(outcome["loss"])
        self.pairs += len(lease.uids)
        self.learned_tokens += int(outcome["tokens"])
        self.sampled_tokens += int(
            outcome.get("response_length_student", 0.0) * len(lease.uids) + 0.5
        )
        if pushed and "logprob_drift" in outcome:
            self.drift_max = max(self.drift_max, outcome["logprob_drift"])
        values = {**outcome, "step": step, "seconds": seconds, "lag": max(lease.lags, default=0)}
        self.hub.record_step(step, values, lease.lags, self.ledger.balance(), queue)
        if pushed:
            self.hub.observe("sync_seconds", pushed.seconds)
            self.hub.set("weight_version", pushed.version, role="sampler")
        self.hub.set("weight_version", step, role="learner")
        self.progress.update({**values, "depth": queue["depth"]})

    def evaluated(self, when: str, step: int, scores: Scores) -> None:
        """Record one evaluation."""
        for score, value in scores.rounded().items():
            self.hub.set("evaluation_score", value, score=score, model=_model(when))
        quality = ", ".join(f"{key} {value:g}" for key, value in scores.rounded().items())
        self.progress.announce(f"evaluation {when} (step {step}): {quality}")

    def throughput(self) -> dict[str, float]:
        """Return the ``throughput`` section of summary.json, per second of the loops."""
        seconds = max(self._ended - (self._began or self._ended), 1e-9)
        return {
            "pairs_per_second": round(self.pairs / seconds, 3),
            "sampled_tokens_per_second": round(self.sampled_tokens / seconds, 1),
            "learned_tokens_per_second": round(self.learned_tokens / seconds, 1),
        }


def _model(when: str) -> str:
    return "teacher" if when == "teacher" else "student"


def clock_metrics(hub: MetricsHub, role: str, clocks: Sequence[Mapping[str, Any]]) -> None:
    """Export where a role's seconds went."""
    for state in ("busy_seconds", "idle_seconds"):
        hub.set(state, sum(clock[state] for clock in clocks), role=role)
