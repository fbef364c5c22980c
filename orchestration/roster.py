"""Who draws: samplers join and leave while the loops turn.

Those that are missing (more are wanted, or the run does without one that died) are placed beside
the loops: they wait for room in the cluster, load their model and warm up. Between two steps the
ready ones are given the weights that the others hold, and join; those too many leave, each behind
the calls that it was given.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from configs.supervision import SupervisionConfig
from orchestration.assembly import Roles, bring_up
from orchestration.exporter import MetricsHub
from orchestration.ledger import Ledger
from orchestration.roles import AnswerLost, Role
from orchestration.weight_sync import WeightSync

LONGEST_WAIT_SECONDS = 600.0
"""Between a newcomer that did not come up and the next try."""
MOST_AT_ONCE = 8
"""Newcomers that come up, or wait for a place, at the same time."""
STOP_SECONDS = 10.0
"""Those who leave get so long when the run ends."""
_LOG = logging.getLogger(__name__)


@dataclass
class Roster:
    """Keeps a run at as many samplers as are wanted, as far as the cluster has room for them."""

    config: SupervisionConfig
    roles: Roles
    place: Callable[[str], Role]
    """Places a sampler of the given name."""
    wanted: Callable[[], int]
    """How many samplers there shall be; may change at any time."""
    sync: WeightSync
    ledger: Ledger
    hub: MetricsHub
    announce: Callable[[str], None]
    part_with: Callable[[Role], Awaitable[None]]
    """Looks a last time at one that leaves."""
    start_timeout: float
    """Seconds that a sampler with a place gets to load its model."""
    _wanted: int = field(init=False)
    """As of the last look."""
    _coming: "dict[Role, asyncio.Task[None]]" = field(default_factory=dict)
    _ready: list[Role] = field(default_factory=list)
    _leaving: "set[asyncio.Task[None]]" = field(default_factory=set)
    _named: int = field(init=False)
    """Samplers so far: a name is given once, so that nobody is taken for another."""
    _failures: int = 0
    """Newcomers in a row that did not come up."""

    def __post_init__(self) -> None:
        """Count those of the beginning."""
        self._named = self._wanted = len(self.roles.samplers)

    async def watch(self) -> None:
        """Go for missing samplers until cancelled."""
        while True:
            self._wanted = self.wanted()
            if self.sync.takes_newcomers:
                self._recruit()
            self._tell()
            await asyncio.sleep(self.config.health_every_seconds)

    async def change(self, step: int) -> None:
        """Let samplers join and leave behind ``step``; no evaluation is under way.

        Where weights travel by a way that is opened once, they stay who they are.
        """
        if not self.sync.takes_newcomers:
            return
        if self._ready or len(self.roles.samplers) > self._most():
            async with self.sync.at_rest():
                await self._change(step)
        self._tell()

    async def _change(self, step: int) -> None:
        samplers, most = self.roles.samplers, self._most()
        while self._ready and len(samplers) < most:
            if not await self._admit(self._ready[0], step):
                break
        while len(samplers) > most:
            role = samplers.pop()
            self.ledger.left(role.name, step=step)
            self.announce(f"{role.name} leaves behind step {step}: {len(samplers)} draw")
            self._let_go(role)

    async def stop(self) -> None:
        """End everyone who is not, or no more, among the run's roles."""
        coming = list(self._coming.values())
        for task in coming:
            task.cancel()
        for role in list(self._ready):
            self._take_out(role)
            self._let_go(role)
        leaving = list(self._leaving)
        if leaving:
            await asyncio.wait(leaving, timeout=STOP_SECONDS)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*coming, *leaving, return_exceptions=True)

    def _most(self) -> int:
        """Return how many may draw: a run never gives up the few that it cannot be without."""
        return max(self._wanted, min(self.config.min_samplers, len(self.roles.samplers)))

    def _recruit(self) -> None:
        """Go for as many as are missing; call off, or let go, those who no longer are."""
        missing = self._wanted - len(self.roles.samplers) - len(self._ready)
        for role in self._ready[min(0, missing) or len(self._ready) :]:
            self._take_out(role)
            self._let_go(role)
        missing = min(MOST_AT_ONCE, max(0, missing))
        for role in list(self._coming)[missing:]:
            self._coming[role].cancel()
        for _ in range(len(self._coming), missing):
            role = self.place(f"sampler-{self._named}")
            self._named += 1
            self._coming[role] = asyncio.create_task(self._bring_up(role))

    async def _bring_up(self, role: Role) -> None:
        """Bring a newcomer up; where it fails, let some time pass before the next try."""
        try:
            await role.call("restart_clock", timeout=math.inf)  # answers once it has a place
            await bring_up(role, self.start_timeout)
            self._ready.append(role)
            self.roles.apart.append(role)
            self._failures = 0
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on
            self._fail(role, error)
            wait = self.config.backoff_seconds * 2 ** min(self._failures - 1, 16)
            await asyncio.sleep(min(wait, LONGEST_WAIT_SECONDS))
        except asyncio.CancelledError:
            role.kill()
            raise
        finally:
            del self._coming[role]

    async def _admit(self, role: Role, step: int) -> bool:
        """Give the first that is ready the weights, and take it in; False: not this time."""
        try:
            await role.call("restart_clock", timeout=self.config.health_timeout_seconds)
            await self.sync.give(role)
        except AnswerLost:
            return False  # the weights went with their machine: new ones come with the next push
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on
            self._take_out(role)
            self._fail(role, error)
            return True
        self._take_out(role)
        self.roles.samplers.append(role)
        self.ledger.joined(role.name, step=step)
        self.announce(f"{role.name} joins behind step {step}: {len(self.roles.samplers)} draw")
        return True

    def _fail(self, role: Role, error: Exception) -> None:
        role.kill()
        self._failures += 1
        self.announce(f"{error}. The run goes on without {role.name}; another is tried later")

    def _take_out(self, role: Role) -> None:
        self._ready.remove(role)
        self.roles.apart.remove(role)

    def _let_go(self, role: Role) -> None:
        self.roles.apart.append(role)
        task = asyncio.create_task(self._see_off(role))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _see_off(self, role: Role) -> None:
        """End a sampler once what it was asked for is there."""
        try:
            await role.free()
            async with asyncio.timeout(self.config.health_timeout_seconds):
                await self.part_with(role)
        except Exception:  # noqa: BLE001  it died before: whoever waited for it asks another
            _LOG.warning("%s left without a word", role.name, exc_info=True)
        finally:
            self.roles.apart.remove(role)
            await role.stop()

    def _tell(self) -> None:
        coming = len(self._coming) + len(self._ready)
        self.hub.set("samplers", len(self.roles.samplers), state="drawing")
        self.hub.set("samplers", coming, state="coming")
        self.hub.set("samplers", self._wanted, state="wanted")
