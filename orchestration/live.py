"""What the live page shows: the newest points of a run, held in memory for whoever looks."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

POINTS = 2000
"""Points held of a stage; beyond them every second one goes, so that the whole course stays."""
SAMPLES = 4
CHARTS: Mapping[str, tuple[str, ...]] = {
    "implicit reward": ("reward_teacher", "reward_student"),
    "reverse KL, nats/response": ("reverse_kl_k1",),
    "loss": ("loss",),
    "tuples in the queue": ("queue_depth", "queue_leased"),
    "policy lag, steps": ("policy_lag_mean", "policy_lag_max"),
    "busy share": ("busy_sampler", "busy_teacher", "busy_learner"),
}
"""Chart → its lines; each is a key of a point."""
_KEYS = {key for keys in CHARTS.values() for key in keys}


class LiveFeed:
    """Collects points from the run's thread and hands them to the server's; both may wait a moment.

    A reader names the *edition* that it has seen and the number of points that it holds of it: it
    gets the others. What it holds is void once a stage begins or points are thinned out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._edition = 0
        self._stage = ""
        self._points: list[dict[str, float | None]] = []
        self._stride, self._skipped = 1, 0
        self._shares: dict[str, float] = {}
        self._clocks: dict[str, tuple[float, float]] = {}
        self._scores: list[dict[str, Any]] = []
        self._samples: list[dict[str, Any]] = []

    def stage(self, name: str) -> None:
        """Begin another stage: a warm start, the run itself."""
        with self._lock:
            self._stage, self._points = name, []
            self._stride, self._skipped = 1, 0
            self._shares, self._clocks = {}, {}
            self._scores, self._samples = [], []
            self._edition += 1

    def step(self, values: Mapping[str, float]) -> None:
        """Add one step: ``step``, ``time`` (Unix) and any statistics; the charts' are kept."""
        with self._lock:
            self._skipped += 1
            if self._skipped < self._stride:
                return
            self._skipped = 0
            kept = {key: _json(value) for key, value in values.items() if key in _KEYS}
            when = {"step": values["step"], "time": values["time"]}
            self._points.append({**when, **kept, **self._shares})
            if len(self._points) > POINTS:
                self._points = self._points[::2]
                self._stride *= 2
                self._edition += 1

    def clocks(self, times: Mapping[str, Mapping[str, float]]) -> None:
        """Take each role's busy and idle seconds so far; points bear the share since the last."""
        with self._lock:
            for role, clock in times.items():
                busy, idle = clock["busy_seconds"], clock["idle_seconds"]
                before = self._clocks.get(role, (0.0, 0.0))
                worked, waited = busy - before[0], idle - before[1]
                if worked < 0 or waited < 0:  # the clock was set to zero in between
                    worked, waited = busy, idle
                if worked + waited > 0:
                    self._shares[f"busy_{role}"] = worked / (worked + waited)
                self._clocks[role] = (busy, idle)

    def evaluated(self, when: str, step: int, scores: Mapping[str, float]) -> None:
        """Add one evaluation."""
        with self._lock:
            known = {key: _json(value) for key, value in scores.items()}
            self._scores.append({"when": when, "step": step, **known})

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the newest generations: ``when``, ``step``, ``prompt``, ``response``."""
        with self._lock:
            keys = ("when", "step", "prompt", "response")
            self._samples = [{key: row[key] for key in keys} for row in rows[:SAMPLES]]

    def since(self, edition: int, held: int) -> dict[str, Any]:
        """Return all that a reader lacks who holds ``held`` points of ``edition``; plain JSON."""
        with self._lock:
            first = held if edition == self._edition else 0
            return {
                "edition": self._edition,
                "first": first,
                "stage": self._stage,
                "charts": {title: list(keys) for title, keys in CHARTS.items()},
                "points": self._points[first:],
                "scores": list(self._scores),
                "samples": list(self._samples),
                "now": time.time(),
            }


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
