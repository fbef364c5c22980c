"""Where a role's seconds went, over all its replicas and all their lives."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.activities import ORDERS, RESTART
from orchestration.busy_clock import Reading


@dataclass
class _Life:
    number: int
    reading: Reading


@dataclass
class TimeAccount:
    """Adds up one part's readings; seconds between two lives are spent waiting for a restart."""

    began: float
    """Of ``time.monotonic``."""
    _wall: float = 0.0
    """Seconds from the beginning to the newest reading."""
    _past: list[Reading] = field(default_factory=list)
    """The last reading of each life that has ended."""
    _newest: _Life | None = None

    def add(self, life: int, reading: Reading) -> None:
        """Take what the clock says in ``life``, of those that ``Role.life`` counts."""
        if self._newest and self._newest.number != life:
            self._past.append(self._newest.reading)
        self._newest = _Life(life, reading)
        self._wall = time.monotonic() - self.began

    @property
    def wall_seconds(self) -> float:
        """Seconds from the beginning to the newest reading, by the driver's clock."""
        return self._wall

    def busy(self) -> dict[str, float]:
        """Return seconds by what was done."""
        return _sum(reading.busy for reading in self._readings())

    def idle(self) -> dict[str, float]:
        """Return seconds by what was waited for; a wait under way is for orders, so far."""
        readings = self._readings()
        waits = [{ORDERS: reading.waiting_seconds} for reading in readings]
        dead = self._wall - sum(reading.wall_seconds for reading in readings) if self._past else 0.0
        return _sum([*(reading.idle for reading in readings), *waits, {RESTART: max(0.0, dead)}])

    def _readings(self) -> list[Reading]:
        return [*self._past, *([self._newest.reading] if self._newest else [])]


def as_json(accounts: Sequence[TimeAccount]) -> dict[str, Any]:
    """Return the ``time`` that summary.json tells of a role; ``accounts`` are its replicas'."""
    busy = _rounded(_sum(account.busy() for account in accounts))
    idle = _rounded(_sum(account.idle() for account in accounts))
    return {
        "wall_seconds": round(sum(account.wall_seconds for account in accounts), 3),
        "busy_seconds": round(sum(busy.values()), 3),
        "idle_seconds": round(sum(idle.values()), 3),
        "busy": busy,
        "idle": idle,
    }


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        for what, seconds in part.items():
            total[what] += seconds
    return dict(total)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Round, largest first, and leave out what rounds to nothing."""
    rounded = {what: round(value, 3) for what, value in seconds.items()}
    return dict(sorted(((k, v) for k, v in rounded.items() if v), key=lambda item: -item[1]))
