"""What is done when a part dies that the loops cannot do without: the learner, or the queue.

The queue holds nothing that the ledger does not know: a new one starts empty, and what is in
flight is issued again. A learner comes back with its newest checkpoint (or as it began), and what
was consumed since is in flight again; the queue's tuples may be of weights that no longer are, so
it starts empty, too.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from configs.run import RunConfig
from orchestration.assembly import Roles
from orchestration.keeper import Keeper
from orchestration.pipeline import Pipeline
from orchestration.roles import RoleDied
from orchestration.supervisor import Supervisor
from orchestration.weight_sync import WeightSync


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Replaces what died, and returns the pipeline that goes on."""

    config: RunConfig
    roles: Roles
    sync: WeightSync
    keeper: Keeper
    supervisor: Supervisor
    pipeline: Callable[[int], Pipeline]
    """Makes the pipeline that goes on behind a step."""

    async def after(self, death: RoleDied, broken: Pipeline) -> Pipeline:
        """Bring the run back to where it is whole; also where the part died in an evaluation, for
        which the samplers held other weights.

        Raises RoleError when the part does not come back.
        """
        await broken.settle()
        if death.role.startswith("learner"):
            await self.supervisor.bring_back("learner", death, self._new_learner)
        elif death.role.startswith("queue"):
            await self.supervisor.bring_back("queue", death, self._new_queue)
            await self.supervisor.persist(self.sync.bring_back)
        else:
            raise death
        return self.pipeline(self.roles.learner.step)

    async def _new_queue(self) -> None:
        queue = self.roles.queue
        queue.restart()
        await queue.call("build", timeout=self._patience)

    async def _new_learner(self) -> None:
        learner = self.roles.learner
        for rank in learner.ranks:
            rank.restart()
        await asyncio.gather(
            *(rank.call("build", timeout=self._patience) for rank in learner.ranks)
        )
        await learner.start(self._patience)
        await self.keeper.restore()
        await self._new_queue()
        if self.config.push_every is not None and self.roles.samplers:
            await self.supervisor.persist(lambda: self.sync.push(going_back=True))
        else:
            await self.supervisor.persist(self.sync.bring_back)

    @property
    def _patience(self) -> float:
        return self.config.cluster.start_timeout_seconds
