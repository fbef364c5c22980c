"""The run as one asyncio program. Read this after `configs/wire.py`: these are the verbs.

       PromptSource ──prompts──► sample loop ×N ── TupleMaker ───────────────┐
            ▲                       │ StudentSampler.generate → trajectories │
            │ slots                 │ TeacherServer.respond   → y_t, log p   │
            │                       │ TeacherServer.judge     → tuples       ▼
       learn loop ◄──────────────── ReplayQueue.lease ◄─────────────── ReplayQueue.put
            │  LearnerGroup.learn → a step          (values travel as references, and
            └─ WeightSync.push    → samplers         never through this process)

Back-pressure is one number, the *slots*: a prompt takes a slot when it is issued and gives
it back when the step that learned from it has been pushed to every sampler. There are
``batch_size × (max_policy_lag + 1)`` slots: at lag 0 the loops are in lockstep, and with one
sampler no tuple can be older than ``max_policy_lag`` steps when it is consumed (and, with
negatives from a snapshot, than the snapshot's age more). Where one of several samplers is
overtaken, the queue hands its pair back to be drawn again (the one time that tuples come to
this process). A tuple with a log-probability that is none is dropped, counted, and replaced by
another prompt's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Protocol

from actors.prompts import PromptSource
from configs.errors import NonFiniteError
from configs.replay import DropReason
from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt, Uid
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger
from orchestration.recorder import Recorder
from orchestration.roles import Role
from orchestration.slots import Slots
from orchestration.tuple_maker import TupleMaker
from orchestration.weight_sync import SyncRecord, WeightSync

LEASE_WAIT_SECONDS = 60.0
"""How long one wait for a batch lasts before the loop looks around again."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything a run is made of; ``orchestration.assembly`` builds it."""

    prompts: PromptSource
    samplers: Sequence[Role]
    teachers: Sequence[Role]
    offline: Role | None = None
    """The sampler that keeps the initial weights; None: no pair is drawn offline."""
    reference: Role | None = None
    """Scores by the initial student; None: the objective does not ask it."""
    queue: Role
    learner: LearnerGroup
    sync: WeightSync
    ledger: Ledger
    recorder: Recorder


class EvaluationHook(Protocol):
    """Called between two steps, while every sampler holds the newest weights."""

    async def __call__(self, step: int) -> None:
        """Evaluate the student as it is after ``step`` steps."""
        ...


@dataclass
class Pipeline:
    """Runs a distillation from its first prompt to its last step."""

    config: RunConfig
    parts: Parts
    evaluate: EvaluationHook
    step: int = 0
    stopping: bool = False
    _slots: Slots = field(init=False)
    _drawing: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear while an evaluation has the samplers to itself."""

    def __post_init__(self) -> None:
        """Size the slots from the batch and the policy-lag bound."""
        self._drawing.set()
        batch = self.config.learner.batch_size
        self._slots = Slots(
            window=batch * (self.config.replay.max_policy_lag + 1),
            total=batch * (self.config.learner.steps - self.step),
        )

    async def run(self) -> None:
        """Make ``learner.steps`` steps, or stop earlier after ``stop``.

        The samplers hold the learner's weights already. Raises what a part raised (the first
        error ends every loop); leaves the parts running.
        """
        async with asyncio.TaskGroup() as loops:
            producers = [
                loops.create_task(loop, name=f"produce-{index}")
                for index, loop in enumerate(self._producers())
            ]
            learning = loops.create_task(self._learn_loop(), name="learn")
            learning.add_done_callback(lambda _: [task.cancel() for task in producers])

    def stop(self) -> None:
        """Finish the step under way, then stop; no further prompt is issued."""
        self.stopping = True
        self._slots.close()

    def _producers(self) -> list[Any]:
        if not self.config.learns_from_teacher:
            return [self._gold_loop()]
        draws = self.config.learns_from_student
        samplers = cycle(self.parts.samplers if draws else [None])
        teachers = cycle(self.parts.teachers)
        return [
            self._sample_loop(self._maker(next(samplers), next(teachers)))
            for _ in range(self._loops())
        ]

    def _loops(self) -> int:
        """Sample loops: as many as keep every sampler and every teacher in work."""
        samplers = len(self.parts.samplers) if self.config.learns_from_student else 1
        return max(samplers, len(self.parts.teachers))

    def _maker(self, sampler: Role | None, teacher: Role) -> TupleMaker:
        return TupleMaker(
            config=self.config,
            sampler=sampler,
            teacher=teacher,
            offline=self.parts.offline,
            reference=self.parts.reference,
        )

    async def _sample_loop(self, maker: TupleMaker) -> None:
        """Have prompts drawn, answered and judged.

        Consumes prompts; produces tuples in the queue; waits for slots, for the end of an
        evaluation and for room in the queue; unblocked by the learn loop.
        """
        while True:
            prompts = await self._issue()
            await self._drawing.wait()
            await self._put(maker.make(prompts))

    async def _gold_loop(self) -> None:
        """Feed objectives that learn from the data's own responses: no sampler, no teacher."""
        while True:
            prompts = await self._issue()
            await self._put([PreferenceTuple(prompt=prompt) for prompt in prompts])

    async def _learn_loop(self) -> None:
        """Make steps.

        Consumes leases; produces weight versions and free slots; waits for a full batch;
        unblocked by the sample loops.
        """
        while self.step < self.config.learner.steps and not self.stopping:
            lease, batch = await self._lease()
            outcome = await self.parts.learner.learn(batch)
            self.step += 1
            consumed = await self.parts.queue.call("ack", lease.id, self.step)
            self.parts.ledger.consumed(self.step, consumed)
            pushed, queue = await asyncio.gather(
                self._push_if_due(), self.parts.queue.call("statistics")
            )
            await self._slots.learned(len(consumed))
            self.parts.recorder.stepped(self.step, lease, outcome, pushed, queue)
            every = self.config.evaluation.every
            if every and self.step % every == 0 and self.step < self.config.learner.steps:
                await self._evaluate()

    async def _push_if_due(self) -> SyncRecord | None:
        every = self.config.push_every
        due = every is not None and self.step % every == 0
        return await self.parts.sync.push() if due else None

    async def _evaluate(self) -> None:
        """Look at the newest weights; calls to draw wait, or come before them in the samplers."""
        self._drawing.clear()
        async with self.parts.sync.newest(bring_back=self.config.learns_from_student):
            await self.evaluate(self.step)
        self._drawing.set()
        self.parts.recorder.resumed()

    async def _issue(self) -> list[Prompt]:
        """Take prompts against slots, and enter them in the ledger."""
        count = await self._slots.take(self._per_call())
        prompts = self.parts.prompts.take(count)
        self.parts.ledger.issued([prompt.uid for prompt in prompts])
        return prompts

    def _per_call(self) -> int:
        """Prompts per call: an even share of a batch, so that every role has work."""
        batch = self.config.learner.batch_size
        if not self.config.learns_from_teacher:
            return batch
        share = -(-batch // self._loops())
        return (
            min(self.config.student.batch_size, share) if self.config.learns_from_student else share
        )

    async def _put(self, tuples: Any) -> None:
        """Hand tuples (or a reference to them) to the queue, which may make us wait."""
        result = await self.parts.queue.call("put", tuples)
        if result.nonfinite:
            await self._give_up(result.nonfinite, "nonfinite")

    async def _give_up(self, uids: Sequence[Uid], reason: DropReason) -> None:
        """Count uses of prompts as dropped, and let others be issued in their place.

        Raises ``NonFiniteError`` after more than ``replay.max_dropped`` of them.
        """
        self.parts.ledger.dropped(reason, uids)
        await self._slots.dropped(len(uids))
        dropped = sum(self.parts.ledger.balance().dropped.values())
        if dropped > self.config.replay.max_dropped:
            raise NonFiniteError(
                f"{dropped} uses of prompts were dropped, the last of them {uids[-1]} as {reason}: "
                f"more than replay.max_dropped ({self.config.replay.max_dropped}); look at the "
                "teacher's log-probabilities, or raise the bound"
            )

    async def _lease(self) -> tuple[Any, Any]:
        """Lease one batch; its tuples stay remote, its names come here."""
        while True:
            count = self.config.learner.batch_size
            lease_ref, batch = self.parts.queue.submit(
                "lease", count, self.parts.learner.step, LEASE_WAIT_SECONDS, returns=2
            )
            lease = await self.parts.queue.fetch(lease_ref)
            await self._redraw(len(lease.stale))
            if lease.uids:
                return lease, batch

    async def _redraw(self, count: int) -> None:
        """Draw y_s again for pairs that grew stale in the queue; y_t and log p(y_t) stay."""
        if not count:
            return
        stale = await self.parts.queue.call("take_stale", count)
        self.parts.ledger.redrawn([pair.uid for pair in stale])
        maker = self._maker(self.parts.samplers[0], self.parts.teachers[0])
        await self._put(maker.remake(stale))
