"""How prompts become tuples in the queue, whoever dies over them: what comes before a step.

       PromptSource ──► issue ──► make ─── TupleMaker: draw, answer, judge ──► put
                          ▲         ▲                                           │
                 again ───┘         └── redraw ◄── pairs that grew stale ◄── queue

Contents stay with the parts that made them (``Payloads``); the queue has their heads. Where
contents are lost with a machine, their uids are issued again.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any

from configs.errors import TeacherFailedError
from configs.faults import failpoint
from configs.packing import pack
from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt, Uid
from orchestration.drops import Drops
from orchestration.makers import Makers
from orchestration.parts import Parts
from orchestration.payloads import Payloads
from orchestration.roles import AnswerLost, RoleDied
from orchestration.slots import Slots
from orchestration.suspects import Suspects
from orchestration.tuple_maker import Made, TupleMaker


@dataclass(kw_only=True)
class Production:
    """Feeds the queue; several loops may call it at once."""

    config: RunConfig
    parts: Parts
    slots: Slots
    unfinished: InitVar[Iterable[Uid]] = ()
    """In flight in the ledger, and nobody works on them: they are issued again, first."""
    payloads: Payloads = field(default_factory=Payloads)
    drops: Drops = field(init=False)
    _again: deque[Uid] = field(init=False)
    _makers: Makers = field(init=False)
    _suspects: Suspects = field(init=False)
    _lost: set[Uid] = field(default_factory=set)
    """Made before the last loss of contents: where these are gone, too, it is the same one."""
    _drawing: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear while an evaluation has the samplers to itself."""
    _draws: "set[asyncio.Future[Any]]" = field(default_factory=set)
    """Those that are under way; each ends with its proof."""

    def __post_init__(self, unfinished: Iterable[Uid]) -> None:
        """Nothing is issued, nobody suspected."""
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
        self.drops = Drops(
            queue=self.parts.queue,
            ledger=self.parts.ledger,
            slots=self.slots,
            payloads=self.payloads,
            most=self.config.replay.max_dropped,
        )

    def loops(self) -> int:
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

    async def issue(self) -> list[Prompt]:
        """Take prompts against slots, the unfinished first, and enter them in the ledger."""
        count = await self.slots.take(self._per_call())
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

    async def make(self, prompts: list[Prompt]) -> None:
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
                await self.drops.add(poison, "poison")
            except TeacherFailedError as failure:
                await self._teacher_failed(failure)
                rest = [prompt for prompt in group if prompt.uid not in failure.uids]
                groups = [rest, *groups] if rest else groups

    async def put_gold(self, prompts: Sequence[Prompt]) -> None:
        """Queue the data's own responses to ``prompts``: no part has anything to do with them."""
        parcel = pack(PreferenceTuple(prompt=prompt) for prompt in prompts).parcel()
        await self._put([prompt.uid for prompt in prompts], parcel.heads, parcel.batch)

    async def hold(self) -> None:
        """Have draws under way end, and others wait until ``go_on``."""
        self._drawing.clear()
        if self._draws:
            await asyncio.wait(self._draws)

    def go_on(self) -> None:
        """Draw again."""
        self._drawing.set()

    async def redraw(self, count: int) -> None:
        """Draw y_s again for pairs that grew stale in the queue; y_t and log p(y_t) stay."""
        if not count:
            return
        uids = await self.parts.queue.call("take_stale", count)
        try:
            stale = await self.payloads.read(uids, through=self.parts.queue)
        except AnswerLost as loss:
            await self.make_again(uids, loss)
            return
        self.payloads.forget(uids)
        self.parts.ledger.redrawn(uids)
        while stale:
            try:
                await self.parts.supervisor.persist(partial(self._remake, stale))
                return
            except TeacherFailedError as failure:
                await self._teacher_failed(failure)
                stale = [pair for pair in stale if pair.uid not in failure.uids]

    async def make_again(self, uids: Sequence[Uid], loss: AnswerLost) -> None:
        """Have tuples made anew whose contents went with the machine that they lay on."""
        if self._lost.isdisjoint(uids):
            self._lost = self.payloads.uids
            await self.parts.supervisor.revive(loss)
        self._lost.difference_update(uids)
        await self.parts.queue.call("forget", list(uids))
        self.payloads.forget(uids)
        self._again.extend(uids)
        await self.slots.dropped(len(uids))

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
        self.payloads.add(uids, batch)  # a lease may name them before the put has answered
        try:
            result = await self.parts.queue.call("put", heads)
        except Exception:
            self.payloads.withdraw(uids, batch)
            raise
        if result.nonfinite:
            self.parts.recorder.poisoned(result.nonfinite)
            await self.drops.add(result.nonfinite, "nonfinite")

    async def _remake(self, stale: Sequence[PreferenceTuple]) -> None:
        maker = self._makers.next()
        with maker.at_work():
            await self._put_proved(maker, maker.remake(stale))

    async def _teacher_failed(self, failure: TeacherFailedError) -> None:
        """Give up the prompts to which the teacher has no usable answer."""
        self.parts.recorder.teacher_failed(failure.uids, str(failure))
        await self.drops.add(failure.uids, "teacher_failed")
