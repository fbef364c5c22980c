"""Looks at the roles again and again while the loops turn: where their seconds and tokens go."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.assembly import Roles
from orchestration.exporter import MetricsHub
from orchestration.roles import Role, RoleError, summed

INTERVAL_SECONDS = 2.0
DURATIONS = {
    "generate": "sampling_seconds",
    "respond": "scoring_seconds",
    "judge": "scoring_seconds",
    "annotate": "scoring_seconds",
    "save": "checkpoint_seconds",
}
"""Method → the histogram that its calls feed."""
TEACHER_TOTALS = {
    "cache_hits": "teacher_cache_hits",
    "cache_misses": "teacher_cache_misses",
}


class RoleWatch:
    """Reads the parts' clocks and counters into the metrics; never in the loops' way.

    A busy part answers when it is done with its call, and the watch waits for it.
    """

    def __init__(self, hub: MetricsHub, roles: Roles) -> None:
        self._hub = hub
        self.teacher_cache: dict[str, float] = {}
        """Hits, misses and their rate, as of the last look; empty without a teacher."""
        self.teacher_tokens: dict[str, float] = {}
        """Response tokens that the objective had the teacher answer and judge, cached or not."""
        self._teachers = roles.teachers
        self._groups: dict[str, Sequence[Role]] = {
            "sampler": roles.samplers,
            "teacher": roles.teachers,
            "learner": roles.learner.ranks,
        }

    async def restart(self) -> None:
        """Set every clock to zero: the loops begin."""
        members = [role for group in self._groups.values() for role in group]
        await asyncio.gather(*(role.call("restart_clock") for role in members))
        for name in self._groups:
            self._hub.set("restarts", 0, role=name)

    async def run(self) -> None:
        """Look until cancelled; a dead role is the loops' to report."""
        while True:
            with contextlib.suppress(RoleError):
                await self.look()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> dict[str, dict[str, float]]:
        """Read everything once; returns busy and idle seconds by role."""
        times = {}
        for name, members in self._groups.items():
            clocks = await asyncio.gather(*(role.call("clock") for role in members))
            times[name] = summed(clocks)
            for key, value in times[name].items():
                self._hub.set(key, value, role=name)
            self._observe(clocks)
        self._hub.feed.clocks(times)
        await self._look_at_teachers()
        return times

    def _observe(self, clocks: Sequence[Mapping[str, Any]]) -> None:
        for clock in clocks:
            for method, seconds in clock["calls"]:
                if method in DURATIONS:
                    self._hub.observe(DURATIONS[method], seconds)

    async def _look_at_teachers(self) -> None:
        counts = await asyncio.gather(*(role.call("statistics") for role in self._teachers))
        if not counts:
            return
        totals = {name: sum(count[name] for count in counts) for name in TEACHER_TOTALS}
        for name, key in TEACHER_TOTALS.items():
            self._hub.set(key, totals[name])
        asked = sum(totals.values())
        rate = round(totals["cache_hits"] / asked, 4) if asked else 0.0
        self.teacher_cache = {
            "hits": totals["cache_hits"],
            "misses": totals["cache_misses"],
            "hit_rate": rate,
        }
        self.teacher_tokens = {
            f"teacher_{kind}": sum(count[f"{kind}_tokens"] for count in counts)
            for kind in ("answered", "judged")
        }
        worked = sum(count["generated_tokens"] + count["scored_tokens"] for count in counts)
        self._hub.set("tokens", worked, role="teacher")
