"""What follows a step: its weights go to the samplers, then its slots come back and it is recorded.

    step n ─ publish ─► load n ─ slots ─ record ──┐ one after the other
                  step n+1 ─ publish ············ └─► load n+1 ─ slots ─ record

The learner goes on as soon as its weights are laid out, so weights travel beside its next step. How
old a tuple may be does not change by that: a slot comes back when the samplers hold the step that
learned from it (docs/decisions/0002-slots.md). In lockstep there is nothing to go on with before.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from configs.faults import failpoint
from orchestration.recorder import Recorder
from orchestration.replay_state import Lease
from orchestration.roles import AnswerLost, Role, RoleDied
from orchestration.slots import Slots
from orchestration.supervisor import Supervisor
from orchestration.weight_sync import SyncRecord, WeightSync


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step that is learned, acknowledged and in the ledger."""

    number: int
    lease: Lease
    outcome: Mapping[str, float]
    consumed: int
    """Prompts that it learned from."""


@dataclass(kw_only=True)
class HandOver:
    """Hands one step over after the other; at most one is under way."""

    sync: WeightSync
    queue: Role
    slots: Slots
    recorder: Recorder
    supervisor: Supervisor
    push_every: int | None
    """Steps from one push to the next; None: the samplers keep what they have."""
    _latest: "asyncio.Task[None] | None" = None
    _learning: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while weights change, and while they are laid out."""
    _failed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def learning(self) -> asyncio.Lock:
        """To be held while the learner makes a step."""
        return self._learning

    async def begin(self, step: Step) -> None:
        """Start, and wait until the learner may change its weights. Raises what has failed."""
        free = asyncio.Event()
        self._latest = asyncio.create_task(self._hand_over(step, self._latest, free))
        self._latest.add_done_callback(self._hear)
        await free.wait()
        if self._failed.is_set():
            await self.done()

    async def done(self) -> None:
        """Wait until every step is handed over; raises the first error that one met."""
        if self._latest:
            await asyncio.shield(self._latest)

    async def watch(self) -> None:
        """Wait for an error, and raise it; for who must not wait for slots that never come."""
        await self._failed.wait()
        await self.done()

    async def settle(self) -> None:
        """Wait until nothing is under way, however it ends."""
        if self._latest:
            await asyncio.gather(self._latest, return_exceptions=True)

    async def _hand_over(
        self, step: Step, before: "asyncio.Task[None] | None", free: asyncio.Event
    ) -> None:
        pushed: SyncRecord | None = None
        queue: Mapping[str, float] = {}
        try:
            if before:
                await before
            due = self.push_every is not None and step.number % self.push_every == 0
            pushed, queue = await asyncio.gather(
                self._push(free) if due else _nothing(), self._queue_statistics()
            )
            failpoint("driver.pushed")
            await self.slots.learned(step.consumed)
        finally:
            # The step is in the ledger, whatever became of the push: no record may lack it.
            self.recorder.stepped(step.number, step.lease, step.outcome, pushed, queue)
            free.set()

    async def _push(self, free: asyncio.Event) -> SyncRecord:
        if not self.sync.leaves_learner_free:
            return await self.supervisor.persist(self.sync.push)
        self.sync.publish()
        pushed, _ = await asyncio.gather(self._load(), self._laid_out(free))
        return pushed

    async def _laid_out(self, free: asyncio.Event) -> None:
        await self.sync.laid_out()
        free.set()

    async def _load(self) -> SyncRecord:
        """Load what is published, whoever dies over it; publish anew where it was lost."""
        lost = False

        async def load() -> SyncRecord:
            nonlocal lost
            if lost:
                async with self._learning:
                    self.sync.publish()
                    await self.sync.laid_out()
            try:
                return await self.sync.load()
            except AnswerLost:
                lost = True
                raise

        return await self.supervisor.persist(load)

    async def _queue_statistics(self) -> Mapping[str, float]:
        """Return how full the queue is; the next lease will tell of a dead one."""
        try:
            return await self.queue.call("statistics")
        except RoleDied:
            return {}

    def _hear(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception():
            self._failed.set()


async def _nothing() -> None:
    return None
