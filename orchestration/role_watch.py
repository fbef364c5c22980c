"""Looks at the roles again and again while the loops turn: where their seconds and tokens go."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.assembly import Roles
from orchestration.busy_clock import Reading
from orchestration.exporter import MetricsHub
from orchestration.roles import Role, RoleError
from orchestration.run_folder import RunFolder
from orchestration.time_account import TimeAccount, as_json

INTERVAL_SECONDS = 2.0
DURATIONS = {
    ("sampler", "generate"): "sampling_seconds",
    ("teacher", "respond"): "answering_seconds",
    ("teacher", "judge"): "scoring_seconds",
}
"""Role and method → the histogram that its calls feed."""
_LOG = logging.getLogger(__name__)


class RoleWatch:
    """Reads the parts' clocks and counters into the metrics; never in the loops' way.

    Clocks and counts answer while their part works, and are not booked as its work.
    """

    def __init__(self, hub: MetricsHub, roles: Roles, folder: RunFolder) -> None:
        self._hub = hub
        self._folder = folder
        self.roles = roles
        self._accounts: dict[str, dict[str, TimeAccount]] = {}
        self._counts: dict[tuple[str, int], Mapping[str, float]] = {}
        """Each teacher's newest counts, by name and life: what a dead one did was done."""

    def groups(self) -> dict[str, Sequence[Role]]:
        """Return the parts that are there, by role."""
        roles = self.roles
        return {
            "sampler": roles.samplers,
            "teacher": roles.teachers,
            "learner": roles.learner.ranks,
            "offline": [roles.offline] if roles.offline else [],
            "reference": [roles.reference] if roles.reference else [],
        }

    async def restart(self) -> None:
        """Set every clock to zero: the loops begin."""
        groups = self.groups()
        members = [role for group in groups.values() for role in group]
        await asyncio.gather(*(role.call("restart_clock") for role in members))
        now = time.monotonic()
        self._accounts = {
            name: {role.name: TimeAccount(now) for role in group} for name, group in groups.items()
        }

    async def run(self) -> None:
        """Look until cancelled; a dead role is the loops' to report."""
        while True:
            try:
                await self.look()
            except RoleError:
                pass
            except OSError:
                _LOG.warning("what the parts do could not be written down", exc_info=True)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> dict[str, dict[str, Any]]:
        """Read everything once; returns where each role's seconds went (``as_json``)."""
        for name, members in self.groups().items():
            await asyncio.gather(*(self._read(name, role) for role in members))
        await asyncio.gather(*(self._count(role) for role in self.roles.teachers))
        self._tell_counts()
        times = {
            name: as_json(list(each.values())) for name, each in self._accounts.items() if each
        }
        self._tell_times(times)
        return times

    async def part_with(self, sampler: Role) -> None:
        """Take what one that leaves has done since the last look."""
        await self._read("sampler", sampler)

    async def last_look(self) -> None:
        """Take what was done since the accounts were closed, for the timeline."""
        self._accounts = {}
        try:
            await self.look()
        except (RoleError, OSError):
            _LOG.warning("the end of the timeline is missing", exc_info=True)

    @property
    def teacher_cache(self) -> dict[str, float]:
        """Hits, misses and their rate, as of the last look; empty without a teacher."""
        if not self._counts:
            return {}
        hits, misses = self._total("cache_hits"), self._total("cache_misses")
        rate = round(hits / (hits + misses), 4) if hits + misses else 0.0
        return {"hits": hits, "misses": misses, "hit_rate": rate}

    @property
    def teacher_tokens(self) -> dict[str, float]:
        """Response tokens that the objective had the teacher answer and judge, cached or not."""
        kinds = ("answered", "judged") if self._counts else ()
        return {f"teacher_{kind}": self._total(f"{kind}_tokens") for kind in kinds}

    async def _read(self, group: str, role: Role) -> None:
        life = role.life
        reading: Reading = await role.call("clock")
        self._hub.spans(role.name, reading.spans)
        for span in reading.spans:
            if span.busy and (key := DURATIONS.get((group, span.method))):
                self._hub.observe(key, span.seconds)
        if self._accounts:  # the loops turn
            account = self._accounts[group].setdefault(role.name, TimeAccount(time.monotonic()))
            account.add(life, reading)

    async def _count(self, role: Role) -> None:
        life = role.life
        if counts := await role.call("statistics"):  # none while it is being built
            self._counts[role.name, life] = counts

    def _total(self, count: str) -> float:
        return sum(counts[count] for counts in self._counts.values())

    def _tell_times(self, times: Mapping[str, Mapping[str, Any]]) -> None:
        for name, account in times.items():
            if account["wall_seconds"]:
                waited = account["idle_seconds"] / account["wall_seconds"]
                self._hub.set("bubble", min(1.0, waited), role=name)
        if times:
            self._hub.feed.clocks(times)
            self._folder.times(times)

    def _tell_counts(self) -> None:
        for key, value in {
            "teacher_cache_hits": self._total("cache_hits"),
            "teacher_cache_misses": self._total("cache_misses"),
        }.items():
            self._hub.set(key, value)
        worked = self._total("generated_tokens") + self._total("scored_tokens")
        self._hub.set("tokens", worked, role="teacher")
