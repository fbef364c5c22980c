"""Keeps parts alive: asks after them, restarts the dead, and knows when to give up.

A sampler, a teacher or another scorer is started again under the run, and whoever waited for it
asks again. A dead learner or queue takes the run back to a checkpoint or to its ledger, which is
``orchestration.recovery``'s work: for those ``revive`` raises what it was given.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from configs.supervision import SupervisionConfig
from orchestration.assembly import Roles, bring_up
from orchestration.exporter import MetricsHub
from orchestration.ledger import Ledger
from orchestration.roles import AnswerLost, Role, RoleDied, RoleError
from orchestration.weight_sync import WeightSync

LONGEST_BACKOFF_SECONDS = 60.0
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Supervisor:
    """Restarts the parts of one run, each so many times."""

    config: SupervisionConfig
    roles: Roles
    sync: WeightSync
    ledger: Ledger
    hub: MetricsHub
    announce: Callable[[str], None]
    report: Callable[[Mapping[str, Any]], None]
    """Is told now and then where every part runs."""
    start_timeout: float
    """Seconds that a restarted part gets to be placed and to load its model."""
    restarts: Counter[str] = field(default_factory=Counter)
    """Restarts that succeeded, by kind of role."""
    _tries: Counter[str] = field(default_factory=Counter)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, and again after every death that can be mended."""
        while True:
            try:
                return await work()
            except RoleDied as death:
                await self.revive(death)

    async def revive(self, death: RoleDied) -> None:
        """Bring the dead role back, with the weights that its kind holds now.

        Returns at once where somebody else has done so, or where the run goes on without it.
        Raises ``death`` for a learner or queue, and RoleError when the role does not come back
        and cannot be done without. Of an answer that was lost nobody is dead: after a wait whoever
        wanted it may ask again, ``max_restarts`` times.
        """
        if death.role.startswith(("learner", "queue")):
            raise death
        if isinstance(death, AnswerLost):
            await self._ask_again(death)
            return
        async with self._locks.setdefault(death.role, asyncio.Lock()):
            role = next((r for r in self.roles.engines() if r.name == death.role), None)
            if role is None or role.life > death.life:
                return
            try:
                await self.bring_back(
                    role.name, death, lambda: self._start(role), wanted=lambda: self._has(role)
                )
            except RoleError as error:
                self._do_without(role, error)
            if not self._has(role):  # it left, or was given up, meanwhile
                role.kill()

    async def bring_back(
        self,
        name: str,
        death: RoleError,
        start: Callable[[], Awaitable[None]],
        *,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Call ``start`` until it succeeds, or the part is not ``wanted``, with growing waits.

        Raises RoleError once the part was restarted ``max_restarts`` times in this run.
        """
        found = time.monotonic()
        while wanted():
            self._tries[name] += 1
            if self._tries[name] > self.config.max_restarts:
                raise RoleError(
                    f"{death}. It was restarted {self.config.max_restarts} times, as often as "
                    "supervision.max_restarts allows"
                ) from None
            wait = self.config.backoff_seconds * 2 ** (self._tries[name] - 1)
            self.announce(f"{death}. Restarting it (try {self._tries[name]})")
            await asyncio.sleep(min(wait, LONGEST_BACKOFF_SECONDS))
            try:
                await start()
            except RoleError as error:
                death = error
                continue
            kind = name.split("-", maxsplit=1)[0]
            self.restarts[kind] += 1
            self.hub.set("restarts", self.restarts[kind], role=kind)
            self.ledger.restarted(name, str(death), seconds=time.monotonic() - found)
            return

    async def _ask_again(self, loss: AnswerLost) -> None:
        self._tries[loss.role] += 1
        if self._tries[loss.role] > self.config.max_restarts:
            raise RoleError(
                f"{loss}. Answers were lost more than {self.config.max_restarts} times, as often "
                "as supervision.max_restarts allows; look at the machines that left the cluster"
            ) from None
        self.announce(f"{loss}. Asking again")
        await asyncio.sleep(self.config.backoff_seconds)

    async def watch(self) -> None:
        """Ask after every part until cancelled; kill what does not answer, for others to mend."""
        while True:
            every = [*self.roles.all(), *self.roles.apart]
            await asyncio.gather(*(self._ask(role) for role in every))
            try:
                self.report({role.name: role.process for role in self.roles.all()})
            except OSError:  # a full disk is the loops' to report
                _LOG.warning("where the parts run could not be written down", exc_info=True)
            await asyncio.sleep(self.config.health_every_seconds)

    async def _ask(self, role: Role) -> None:
        """Kill a part that answered before, and does not any more.

        One that has not answered yet in this life may wait for its place: its start has a
        time-out of its own.
        """
        life, answered = role.life, role.process is not None
        alive = await role.is_alive(self.config.health_timeout_seconds)
        if answered and not alive and role.life == life:
            role.kill()

    async def _start(self, role: Role) -> None:
        role.restart()
        await bring_up(role, self.start_timeout)
        if role in self.roles.samplers:
            await self.sync.give(role)

    def _has(self, role: Role) -> bool:
        return role in self.roles.engines()

    def _do_without(self, role: Role, error: RoleError) -> None:
        """Go on with the other samplers, if they are enough; else raise ``error``."""
        samplers = self.roles.samplers
        if not self._has(role):
            return
        if role not in samplers or len(samplers) <= self.config.min_samplers:
            raise error
        samplers.remove(role)
        self.ledger.left(role.name, step=self.roles.learner.step)
        self.announce(f"{error}; going on with {len(samplers)} of the samplers")
