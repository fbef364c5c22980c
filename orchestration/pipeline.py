"""The run as one asyncio program. Read this after `configs/wire.py`: these are the verbs.

       PromptSource ──prompts──► sample loops   ── TupleMaker ───────────────┐
            ▲                       │ StudentSampler.generate → trajectories │   (and their proof)
            │ slots                 │ TeacherServer.respond   → y_t, log p   │
            │                       │ TeacherServer.judge     → tuples       ▼ their heads
       learn loop ◄──────────────── ReplayQueue.lease ◄─────────────── ReplayQueue.put
            │  LearnerGroup.learn → a step          (contents travel from their makers to the
            └─ HandOver: weights  → samplers         learner, by Payloads' references)

Back-pressure is one number, the *slots*: a prompt takes a slot when it is issued and gives it back
when the step that learned from it has been pushed to every sampler. There are ``batch_size ×
(max_policy_lag + 1)`` slots: at lag 0 the loops are in lockstep, and with one sampler no tuple can
be older than ``max_policy_lag`` steps when it is consumed (and, with negatives from a snapshot,
than the snapshot's age more). Where one of several samplers is overtaken, the queue hands its pair
back to be drawn again (the one time that tuples come to this process). Tuples whose contents are
lost with a machine are made again. A tuple with a log-probability that is none is dropped, counted,
and replaced by another prompt's; so is a batch whose loss or gradient is none, a prompt that kills,
and one to which a served teacher has no usable answer.

Samplers join and leave between steps (``orchestration.roster``), and their loops with them. What
dies under the loops and can be replaced is replaced (``orchestration.supervisor``) and asked
again. A dead learner or queue ends the loops; another pipeline then goes on (``recovery``).

Here are the loops and the steps; ``production`` has what fills the queue, ``hand_over`` what
follows a step.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Protocol

from configs.errors import NonFiniteError
from configs.faults import failpoint
from configs.run import RunConfig
from configs.wire import Uid
from orchestration.hand_over import HandOver, Step
from orchestration.parts import Parts
from orchestration.production import Production
from orchestration.replay_state import Lease
from orchestration.roles import AnswerLost, RoleDied
from orchestration.slots import Slots

LEASE_WAIT_SECONDS = 60.0
"""How long one wait for a batch lasts before the loop looks around again."""


class StepHook(Protocol):
    """Called between two steps."""

    async def __call__(self, step: int) -> None:
        """Look at the student as it is after ``step`` steps, or keep it."""
        ...


@dataclass
class Pipeline:
    """Runs a distillation from its first prompt, or where another stopped, to its last step."""

    config: RunConfig
    parts: Parts
    evaluate: StepHook
    """Called while every sampler holds the newest weights."""
    keep: StepHook
    """Called where a checkpoint is due."""
    regroup: StepHook
    """Called after every step but the last: now samplers may join and leave."""
    step: int = 0
    unfinished: InitVar[Iterable[Uid]] = ()
    """In flight in the ledger, and nobody works on them: they are issued again, first."""
    _slots: Slots = field(init=False)
    _production: Production = field(init=False)
    _hand_over: HandOver = field(init=False)
    _loops: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _producing: "dict[int, asyncio.Task[None]]" = field(default_factory=dict)
    """The loops that feed the queue, by number."""
    _learning: "asyncio.Task[Any] | None" = None
    """The step under way; it is never cut off from the ledger."""
    _skipped: int = 0
    """Steps in a row that were skipped for a number that is none."""
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self, unfinished: Iterable[Uid]) -> None:
        """Size the slots from the batch and the policy-lag bound."""
        batch = self.config.learner.batch_size
        self._slots = Slots(
            window=batch * (self.config.replay.max_policy_lag + 1),
            total=batch * (self.config.learner.steps - self.step),
        )
        self._production = Production(
            config=self.config, parts=self.parts, slots=self._slots, unfinished=unfinished
        )
        self._hand_over = HandOver(
            sync=self.parts.sync,
            queue=self.parts.queue,
            slots=self._slots,
            recorder=self.parts.recorder,
            supervisor=self.parts.supervisor,
            push_every=self.config.push_every,
        )

    async def run(self) -> None:
        """Make ``learner.steps`` steps, or stop earlier after ``stop``.

        The samplers hold the learner's weights already. Raises what a part raised (the first
        error ends every loop); leaves the parts running.
        """
        async with self._loops:
            self._start_producers()
            watching = self._loops.create_task(self._hand_over.watch(), name="hand-over")
            learning = self._loops.create_task(self._learn_loop(), name="learn")
            learning.add_done_callback(
                lambda _: [each.cancel() for each in (watching, *self._producing.values())]
            )

    def stop(self) -> None:
        """Finish the step under way, then stop; no further prompt is issued."""
        self._stopped.set()
        self._slots.close()

    async def settle(self) -> None:
        """Wait, after ``run`` has failed, until the step under way is made and booked, or not."""
        if self._learning:
            await asyncio.gather(self._learning, return_exceptions=True)
        await self._hand_over.settle()
        self._production.payloads.clear()  # another pipeline has them made again

    def _start_producers(self) -> None:
        """Start the loops that are missing."""
        produce = self._sample_loop if self.config.learns_from_teacher else self._gold_loop
        for index in range(self._production.loops()):
            if index not in self._producing or self._producing[index].done():
                task = self._loops.create_task(produce(index), name=f"produce-{index}")
                self._producing[index] = task

    async def _sample_loop(self, index: int) -> None:
        """Have prompts drawn, answered and judged.

        Consumes prompts; produces tuples in the queue; waits for slots, for the end of an
        evaluation and for room in the queue; unblocked by the learn loop. Ends once there is no
        part for it any more.
        """
        while index < self._production.loops():
            await self._production.make(await self._production.issue())

    async def _gold_loop(self, _index: int) -> None:
        """Feed objectives that learn from the data's own responses: no sampler, no teacher."""
        while True:
            await self._production.put_gold(await self._production.issue())

    async def _learn_loop(self) -> None:
        """Make steps.

        Consumes leases; produces weight versions and free slots; waits for a full batch;
        unblocked by the sample loops.
        """
        while self.step < self.config.learner.steps and not self._stopped.is_set():
            leased = await self._lease_unless_stopped()
            if leased is None:
                break
            failpoint("driver.leased")
            self._learning = asyncio.create_task(self._learn(leased))
            self._learning.add_done_callback(_hear)
            if await asyncio.shield(self._learning):
                await self._between_steps()
        await self._hand_over.done()
        await self.parts.supervisor.persist(self.parts.sync.prove)

    async def _learn(self, lease: Lease) -> bool:
        """Make one step and book it: one cannot be without the other. False: it was skipped."""
        try:
            async with self._hand_over.learning:
                outcome = await self.parts.learner.learn(self._production.payloads.pick(lease.uids))
        except NonFiniteError as error:
            await self._skip(lease, error)
            return False
        except AnswerLost as loss:
            await self._production.make_again(lease.uids, loss)
            return False
        self.step += 1
        self._skipped = 0
        failpoint("driver.learned")
        consumed = await self._ack(lease)
        failpoint("driver.acked")
        self._production.payloads.forget(consumed)
        self.parts.ledger.consumed(self.step, consumed)
        failpoint("driver.consumed")
        step = Step(number=self.step, lease=lease, outcome=outcome, consumed=len(consumed))
        await self._hand_over.begin(step)
        return True

    async def _ack(self, lease: Lease) -> Sequence[Uid]:
        """Return what the step consumed; a queue that is dead cannot have it consumed again."""
        try:
            return await self.parts.queue.call("ack", lease.id, self.step)
        except RoleDied:
            return lease.uids

    async def _skip(self, lease: Lease, error: NonFiniteError) -> None:
        """Give a batch up that would have poisoned the weights.

        Raises ``error`` after more than ``learner.max_nonfinite_steps`` in a row.
        """
        self._skipped += 1
        await self.parts.learner.discard()
        self.parts.recorder.skipped(self.step, lease.uids, str(error))
        if self._skipped > self.config.learner.max_nonfinite_steps:
            raise error
        await self._production.drops.add(lease.uids, "nonfinite")

    async def _between_steps(self) -> None:
        if self.step >= self.config.learner.steps:
            return
        evaluation, checkpoint = self.config.evaluation.every, self.config.checkpoint_every
        if evaluation and self.step % evaluation == 0:
            await self._hand_over.done()
            await self.parts.supervisor.persist(self._evaluate)
        if checkpoint and self.step % checkpoint == 0:
            await self._hand_over.done()
            await self.keep(self.step)
        await self.regroup(self.step)
        self._start_producers()

    async def _evaluate(self) -> None:
        """Look at the newest weights: draws under way end before, and others wait until after."""
        await self._production.hold()
        async with self.parts.sync.newest(bring_back=self.config.learns_from_student):
            await self.evaluate(self.step)
        self._production.go_on()
        self.parts.recorder.resumed()

    async def _lease_unless_stopped(self) -> Lease | None:
        """Lease one batch; None: the run is to stop, and there may never be a whole one."""
        leasing = asyncio.create_task(self._lease())
        leasing.add_done_callback(_hear)
        stopping = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait((leasing, stopping), return_when=asyncio.FIRST_COMPLETED)
            return leasing.result() if leasing.done() else None
        finally:
            leasing.cancel()
            stopping.cancel()

    async def _lease(self) -> Lease:
        """Lease one batch."""
        while True:
            count = self.config.learner.batch_size
            lease = await self.parts.queue.call(
                "lease", count, self.parts.learner.step, LEASE_WAIT_SECONDS
            )
            await self._production.redraw(len(lease.stale))
            if lease.uids:
                return lease


def _hear(task: "asyncio.Task[Any]") -> None:
    """Nobody may wait for the task any more when it fails: its error has been told already."""
    _ = task.cancelled() or task.exception()
