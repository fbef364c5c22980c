"""Whose turn it is to make tuples: of those parts that live, the ones with the least to do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from configs.run import RunConfig
from orchestration.roles import Role, RoleDied
from orchestration.supervisor import Supervisor
from orchestration.tuple_maker import TupleMaker


@dataclass(kw_only=True)
class Makers:
    """Chooses the parts of every call; they may join, leave and die meanwhile."""

    config: RunConfig
    samplers: Sequence[Role]
    teachers: Sequence[Role]
    offline: Role | None
    reference: Role | None
    supervisor: Supervisor
    _chosen: int = 0
    """Makers so far."""
    _dead: Counter[str] = field(default_factory=Counter)
    """Parts that are being mended, and how many loops wait for each."""

    def next(self) -> TupleMaker:
        """Return a maker of the idlest sampler and the idlest teacher."""
        self._chosen += 1
        draws = self.config.learns_from_student
        return TupleMaker(
            config=self.config,
            sampler=self._idlest(self.samplers) if draws else None,
            teacher=self._idlest(self.teachers),
            offline=self.offline,
            reference=self.reference,
        )

    async def revive(self, death: RoleDied) -> None:
        """Have a part mended, and ask others until it is."""
        self._dead[death.role] += 1
        try:
            await self.supervisor.revive(death)
        finally:
            self._dead -= Counter([death.role])

    def _idlest(self, roles: Sequence[Role]) -> Role:
        """Return the one that the fewest calls wait for; of several, each in its turn.

        Nobody waits for a dead one: it is asked only where there is no other.
        """
        first = self._chosen % len(roles)
        order = (*roles[first:], *roles[:first])
        return min(order, key=lambda role: (role.name in self._dead, role.clients))
