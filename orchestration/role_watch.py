"""Looks at the roles again and again while the loops turn: where their seconds and tokens go."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from orchestration.assembly import Roles
from orchestration.busy_clock import Reading
from orchestration.exporter import MetricsHub
from orchestration.roles import Role, RoleError
from orchestration.time_account import TimeAccount, as_json

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

    Clocks answer while their part works; a busy teacher tells its counts when it is done with its
    call, and the watch waits for it.
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
        self._accounts: dict[str, dict[str, TimeAccount]] = {}

    async def restart(self) -> None:
        """Set every clock to zero: the loops begin."""
        members = [role for group in self._groups.values() for role in group]
        await asyncio.gather(*(role.call("restart_clock") for role in members))
        now = time.monotonic()
        self._accounts = {
            name: {role.name: TimeAccount(now) for role in group}
            for name, group in self._groups.items()
        }
        for name in self._groups:
            self._hub.set("restarts", 0, role=name)

    async def run(self) -> None:
        """Look until cancelled; a dead role is the loops' to report."""
        while True:
            with contextlib.suppress(RoleError):
                await self.look()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> dict[str, dict[str, Any]]:
        """Read everything once; returns where each role's seconds went (``as_json``)."""
        for name, members in self._groups.items():
            await asyncio.gather(*(self._read(name, role) for role in members))
        times = {name: as_json(list(each.values())) for name, each in self._accounts.items()}
        for name, account in times.items():
            if account["wall_seconds"]:
                waited = account["idle_seconds"] / account["wall_seconds"]
                self._hub.set("bubble", min(1.0, waited), role=name)
        self._hub.feed.clocks(times)
        await self._look_at_teachers()
        return times

    async def _read(self, group: str, role: Role) -> None:
        life = role.life
        reading: Reading = await role.call("clock")
        self._hub.spans(role.name, reading.spans)
        for span in reading.spans:
            if span.busy and span.method in DURATIONS:
                self._hub.observe(DURATIONS[span.method], span.seconds)
        if self._accounts:  # the loops turn
            self._accounts[group].setdefault(role.name, TimeAccount(time.monotonic())).add(
                life, reading
            )

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
