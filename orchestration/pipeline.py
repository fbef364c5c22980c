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
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any, Protocol

from actors.prompts import PromptSource
from configs.errors import NonFiniteError, TeacherFailedError
from configs.faults import failpoint
from configs.packing import pack
from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt, Uid
from orchestration.drops import Drops
from orchestration.hand_over import HandOver, Step
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger
from orchestration.makers import Makers
from orchestration.payloads import Payloads
from orchestration.recorder import Recorder
from orchestration.replay_state import Lease
from orchestration.roles import AnswerLost, Role, RoleDied
from orchestration.slots import Slots
from orchestration.supervisor import Supervisor
from orchestration.suspects import Suspects
from orchestration.tuple_maker import Made, TupleMaker
from orchestration.weight_sync import WeightSync

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
    supervisor: Supervisor


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
    _again: deque[Uid] = field(init=False)
    _payloads: Payloads = field(default_factory=Payloads)
    _makers: Makers = field(init=False)
    _slots: Slots = field(init=False)
    _drops: Drops = field(init=False)
    _suspects: Suspects = field(init=False)
    _hand_over: HandOver = field(init=False)
    _loops: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _producing: "dict[int, asyncio.Task[None]]" = field(default_factory=dict)
    """The loops that feed the queue, by number."""
    _learning: "asyncio.Task[Any] | None" = None
    """The step under way; it is never cut off from the ledger."""
    _lost: set[Uid] = field(default_factory=set)
    """Made before the last loss of contents: where these are gone, too, it is the same one."""
    _skipped: int = 0
    """Steps in a row that were skipped for a number that is none."""
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _drawing: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear while an evaluation has the samplers to itself."""
    _draws: "set[asyncio.Future[Any]]" = field(default_factory=set)
    """Those that are under way; each ends with its proof."""

    def __post_init__(self, unfinished: Iterable[Uid]) -> None:
        """Size the slots from the batch and the policy-lag bound."""
        self._again = deque(sorted(unfinished))
        self._suspects = Suspects(self.config.supervision.poison_after)
        self._drawing.set()
        self._makers = Makers(
            config=self.config,
            samplers=self.parts.samplers,
            teachers=self.parts.teachers,
            offline=self.parts.offline,
            reference=self.parts.reference,
            supervisor=self.parts.supervisor,
        )
        batch = self.config.learner.batch_size
        self._slots = Slots(
            window=batch * (self.config.replay.max_policy_lag + 1),
            total=batch * (self.config.learner.steps - self.step),
        )
        self._drops = Drops(
            queue=self.parts.queue,
            ledger=self.parts.ledger,
            slots=self._slots,
            payloads=self._payloads,
            most=self.config.replay.max_dropped,
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
        self._payloads.clear()  # another pipeline has them made again

    def _start_producers(self) -> None:
        """Start the loops that are missing."""
        produce = self._sample_loop if self.config.learns_from_teacher else self._gold_loop
        for index in range(self._producers()):
            if index not in self._producing or self._producing[index].done():
                task = self._loops.create_task(produce(index), name=f"produce-{index}")
                self._producing[index] = task

    def _producers(self) -> int:
        """Return how many loops keep every sampler and every teacher in work.

        Where samplers may run ahead, a second loop has each of them draw while the teacher judges
        what the first one had drawn; a third, where that may be two batches ahead, has prompts
        at hand to take the places of responses that end.
        """
        if not self.config.learns_from_teacher:
            return 1
        return self._lanes() * (1 + min(self.config.replay.max_policy_lag, 2))

    def _lanes(self) -> int:
        """Return how many calls are at work at once if all parts are: a batch's even shares."""
        samplers = len(self.parts.samplers) if self.config.learns_from_student else 1
        return max(samplers, len(self.parts.teachers))

    async def _sample_loop(self, index: int) -> None:
        """Have prompts drawn, answered and judged.

        Consumes prompts; produces tuples in the queue; waits for slots, for the end of an
        evaluation and for room in the queue; unblocked by the learn loop. Ends once there is no
        part for it any more.
        """
        while index < self._producers():
            await self._make(await self._issue())

    async def _make(self, prompts: list[Prompt]) -> None:
        """Have prompts made into tuples in the queue, whoever dies over them."""
        groups = [prompts]
        while groups:
            await self._drawing.wait()
            group = groups.pop(0)
            maker = self._makers.next()
            try:
                with maker.at_work():
                    await self._put_proved(maker, maker.make(group))
            except RoleDied as death:
                await self._makers.revive(death)
                if isinstance(death, AnswerLost):  # nobody died over these prompts
                    groups.insert(0, group)
                    continue
                again, poison = self._suspects.after_death(group)
                groups = again + groups
                await self._drops.add(poison, "poison")
            except TeacherFailedError as failure:
                await self._teacher_failed(failure)
                rest = [prompt for prompt in group if prompt.uid not in failure.uids]
                groups = [rest, *groups] if rest else groups

    async def _gold_loop(self, _index: int) -> None:
        """Feed objectives that learn from the data's own responses: no sampler, no teacher."""
        while True:
            prompts = await self._issue()
            parcel = pack(PreferenceTuple(prompt=prompt) for prompt in prompts).parcel()
            await self._put([prompt.uid for prompt in prompts], parcel.heads, parcel.batch)

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
                outcome = await self.parts.learner.learn(self._payloads.pick(lease.uids))
        except NonFiniteError as error:
            await self._skip(lease, error)
            return False
        except AnswerLost as loss:
            await self._make_again(lease.uids, loss)
            return False
        self.step += 1
        self._skipped = 0
        failpoint("driver.learned")
        consumed = await self._ack(lease)
        failpoint("driver.acked")
        self._payloads.forget(consumed)
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
        await self._drops.add(lease.uids, "nonfinite")

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
        self._drawing.clear()
        if self._draws:
            await asyncio.wait(self._draws)
        async with self.parts.sync.newest(bring_back=self.config.learns_from_student):
            await self.evaluate(self.step)
        self._drawing.set()
        self.parts.recorder.resumed()

    async def _issue(self) -> list[Prompt]:
        """Take prompts against slots, the unfinished first, and enter them in the ledger."""
        count = await self._slots.take(self._per_call())
        again = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        known = [self.parts.prompts.prompt(uid) for uid in again]
        new = self.parts.prompts.take(count - len(again))
        self.parts.ledger.reissued(again)
        self.parts.ledger.issued([prompt.uid for prompt in new])
        failpoint("driver.issued")
        # A row that was issued once is not passed over: the data are what they were.
        return [prompt for prompt in known if prompt is not None] + new

    def _per_call(self) -> int:
        """Prompts per call: an even share of a batch, so that every role has work."""
        batch = self.config.learner.batch_size
        if not self.config.learns_from_teacher:
            return batch
        share = -(-batch // self._lanes())
        return (
            min(self.config.student.batch_size, share) if self.config.learns_from_student else share
        )

    async def _put_proved(self, maker: TupleMaker, made: Made) -> None:
        """Hand on what was drawn by weights that are proved; judging goes on meanwhile."""
        if maker.sampler and made.proof is not None:
            draw = asyncio.ensure_future(maker.sampler.fetch(made.proof))
            self._draws.add(draw)
            draw.add_done_callback(self._draws.discard)
            proof = await draw
            await self.parts.sync.check(maker.sampler, proof)
        await self._put(made.uids, made.heads, made.batch)

    async def _put(self, uids: Sequence[Uid], heads: Any, batch: Any) -> None:
        """Queue heads (or a reference to them), which may make us wait; ``batch`` stays."""
        self._payloads.add(uids, batch)  # a lease may name them before the put has answered
        try:
            result = await self.parts.queue.call("put", heads)
        except Exception:
            self._payloads.withdraw(uids, batch)
            raise
        if result.nonfinite:
            self.parts.recorder.poisoned(result.nonfinite)
            await self._drops.add(result.nonfinite, "nonfinite")

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
            await self._redraw(len(lease.stale))
            if lease.uids:
                return lease

    async def _redraw(self, count: int) -> None:
        """Draw y_s again for pairs that grew stale in the queue; y_t and log p(y_t) stay."""
        if not count:
            return
        uids = await self.parts.queue.call("take_stale", count)
        try:
            stale = await self._payloads.read(uids, through=self.parts.queue)
        except AnswerLost as loss:
            await self._make_again(uids, loss)
            return
        self._payloads.forget(uids)
        self.parts.ledger.redrawn(uids)
        while stale:
            try:
                await self.parts.supervisor.persist(partial(self._remake, stale))
                return
            except TeacherFailedError as failure:
                await self._teacher_failed(failure)
                stale = [pair for pair in stale if pair.uid not in failure.uids]

    async def _make_again(self, uids: Sequence[Uid], loss: AnswerLost) -> None:
        """Have tuples made anew whose contents went with the machine that they lay on."""
        if self._lost.isdisjoint(uids):
            self._lost = self._payloads.uids
            await self.parts.supervisor.revive(loss)
        self._lost.difference_update(uids)
        await self.parts.queue.call("forget", list(uids))
        self._payloads.forget(uids)
        self._again.extend(uids)
        await self._slots.dropped(len(uids))

    async def _remake(self, stale: Sequence[PreferenceTuple]) -> None:
        maker = self._makers.next()
        with maker.at_work():
            await self._put_proved(maker, maker.remake(stale))

    async def _teacher_failed(self, failure: TeacherFailedError) -> None:
        """Give up the prompts to which the teacher has no usable answer."""
        self.parts.recorder.teacher_failed(failure.uids, str(failure))
        await self._drops.add(failure.uids, "teacher_failed")


def _hear(task: "asyncio.Task[Any]") -> None:
    """Nobody may wait for the task any more when it fails: its error has been told already."""
    _ = task.cancelled() or task.exception()
