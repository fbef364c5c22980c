"""Parts that take time and do nothing else, for the real pipeline to be driven by.

What is simulated: engines, machines, the network, Ray. What is real: the pipeline, the slots, the
replay queue, the ledger, the weight hand-over's protocol.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from configs.packing import pack
from configs.wire import (
    Draw,
    PackedBatch,
    PackedTuple,
    Parcel,
    PreferenceTuple,
    Prompt,
    Response,
    Trajectory,
    Uid,
    WeightProbe,
    WeightProof,
    WeightReceipt,
)
from orchestration.costs import Costs
from orchestration.gaps import Call
from orchestration.replay import ReplayQueue
from orchestration.roles import Process, Role
from orchestration.simulated_machine import Cores, Line, until

_TOKEN = np.zeros(1, np.int32)
_LOGPROB = np.zeros(1, np.float32)
_RESPONSE = Response(
    ids_T=_TOKEN,
    finish_reason="stop",
    behaviour_logprobs_T=_LOGPROB,
    teacher_logprobs_T=_LOGPROB,
)
_PROMPT = Prompt(uid=Uid(0, 0, 0), row=0, prompt_ids_P=_TOKEN)
_ALONE, _PAIR = pack(
    [
        PreferenceTuple(prompt=_PROMPT, teacher_response=_RESPONSE),
        PreferenceTuple(
            prompt=_PROMPT,
            teacher_response=_RESPONSE,
            student_response=_RESPONSE,
            weight_version=0,
        ),
    ]
)
"""Packed once: thousands of samplers' tuples are alike but for what is written outside."""


@dataclass
class World:
    """What all simulated parts share."""

    costs: Costs
    cores: Cores
    driver: Line = field(init=False)
    network: Line = field(default_factory=Line)
    """The line of the learner's machine."""
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of work by role, waits for a core included."""
    calls: list[Call] = field(default_factory=list)
    ways: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds from calls to their beginnings by method."""

    def __post_init__(self) -> None:
        """Let the driver work on the cores that all share."""
        self.driver = Line(self.cores)

    def process(self, name: str) -> Process | None:
        """Return where a part is, whose machine is its own; None where all share one's memory."""
        return Process(name, 0, name) if self.costs.bandwidth else None

    async def pass_on(self, method: str, values: Sequence[Any]) -> None:
        """Let a call reach its part with what it carries; that takes time, and hardly a core."""
        carried = max((len(value) for value in values if isinstance(value, list)), default=0)
        way = self.costs.way(method, carried)
        self.ways[method] += way
        await asyncio.sleep(way)


class SimulatedRole(Role):
    """Runs its calls in the order of their submission, as an actor does."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, timeout=math.inf)
        self.world = world
        self._last: asyncio.Future[Any] | None = None

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """See ``Role.submit``."""
        answer = asyncio.ensure_future(self._in_turn(self._last, method, args))
        self._last = answer
        if returns == 1:
            return answer
        return tuple(asyncio.ensure_future(_item(answer, index)) for index in range(returns))

    async def fetch(self, reference: Any, timeout: float | None = None) -> Any:
        """Wait as long as it takes: nobody hangs here."""
        return await reference

    async def stop(self) -> None:
        """Nothing to stop."""

    async def _in_turn(
        self, before: asyncio.Future[Any] | None, method: str, args: Sequence[Any]
    ) -> Any:
        await self.world.driver.serve(self.world.costs.driver)
        values = [await each if isinstance(each, asyncio.Future) else each for each in args]
        await self.world.pass_on(method, values)
        if before is not None and not before.done():
            await asyncio.wait([before])
        return await self.run(method, values)

    async def run(self, method: str, values: list[Any]) -> Any:
        """Do the work of one call."""
        answer, seconds = getattr(self, method)(*values)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.world.cores.work(seconds)
        self.world.busy[self.name.split("-")[0]] += loop.time() - began
        self.world.calls.append(Call(method, began, loop.time()))
        return answer


async def _item(answer: asyncio.Future[Any], index: int) -> Any:
    return (await answer)[index]


class Shard(NamedTuple):
    """A part of the weights, somewhere in the network."""

    share: float
    """Of their bytes."""
    line: Line
    """Of the machine that has it."""


class SimulatedSampler(SimulatedRole):
    """Draws; holds a version. Where weights cross a network it is on a machine of its own."""

    version = 0

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.line = Line()
        self.process = world.process(name)

    def generate(self, prompts: list[Prompt]) -> tuple[Draw, float]:
        """Answer with a trajectory a prompt."""
        drawn = [
            Trajectory(prompt=prompt, response=_RESPONSE, weight_version=self.version)
            for prompt in prompts
        ]
        proof, _ = self.prove()
        return Draw(drawn, proof), self.world.costs.generate.of(len(prompts))

    def load_weights(self, version: int, *_shards: "Shard") -> tuple[WeightReceipt, float]:
        """Take a version in."""
        self.version = version
        costs = self.world.costs
        nbytes = int(costs.weight_bytes)
        receipt = WeightReceipt(version=version, seconds=costs.load, nbytes=nbytes)
        return receipt, costs.load

    def prove(self) -> tuple[WeightProof, float]:
        """Prove a version, of which there are no weights."""
        return WeightProof(version=self.version, checksum="", logprobs=_LOGPROB), 0.0

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """Hand shards on beside whatever else it does."""
        if method == "relay":
            return asyncio.ensure_future(self._in_turn(None, method, args))
        return super().submit(method, *args, returns=returns)

    def relay(self, shard: "Shard") -> tuple["Shard", float]:
        """Hand a shard on from here."""
        return Shard(shard.share, self.line), 0.0

    async def run(self, method: str, values: list[Any]) -> Any:
        """Let weights cross the network first."""
        shards = [value for value in values if isinstance(value, Shard)]
        copy = self.world.costs.transfer
        await until(max((shard.line.book(shard.share * copy) for shard in shards), default=0.0))
        return await super().run(method, values)


class SimulatedTeacher(SimulatedRole):
    """Answers and judges."""

    def respond(self, prompts: list[Prompt]) -> tuple[list[Response], float]:
        """Answer each prompt."""
        return [_RESPONSE] * len(prompts), self.world.costs.respond.of(len(prompts))

    def judge(
        self,
        prompts: list[Prompt],
        answers: list[Response],
        drawn: list[Trajectory],
        offline: list[Trajectory],
    ) -> tuple[Parcel, float]:
        """Make tuples."""
        versions = {trajectory.prompt.uid: trajectory for trajectory in (*drawn, *offline)}
        tuples = [_joined(prompt, versions.get(prompt.uid)) for prompt in prompts]
        return PackedBatch(tuples).parcel(), self.world.costs.judge.of(len(prompts))


def _joined(prompt: Prompt, drawn: Trajectory | None) -> PackedTuple:
    if drawn is None:
        return _ALONE._replace(uid=prompt.uid)
    return _PAIR._replace(uid=prompt.uid, weight_version=drawn.weight_version)


class SimulatedLearner(SimulatedRole):
    """Learns, and publishes versions; each rank has its share of a batch."""

    ranks = 1
    step = 0

    def forward_backward(
        self, places: list[tuple[int, int]], *_batches: list[PackedTuple]
    ) -> tuple[dict[str, float], float]:
        """Take the share of one rank."""
        seconds = self.world.costs.learning(len(places), self.ranks)
        return {"loss": 0.0, "tokens": float(len(places))}, seconds

    def optim_step(self) -> tuple[dict[str, float], float]:
        """Count a step; its seconds are counted with the gradient's."""
        self.step += 1
        return {}, 0.0

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.process = world.process(name)

    def publish_weights(self, lend: bool, shards: int) -> tuple[tuple[Any, ...], float]:
        """Publish the version, which is all that there is of the weights."""
        parts = [Shard(1 / shards, self.world.network)] * shards
        return (self.step, *parts), self.world.costs.publish

    def probe(self, published: object = None) -> tuple[WeightProbe, float]:
        """Say what it is to be proved by."""
        said = WeightProbe(version=self.step, checksum="", logprobs=_LOGPROB, tolerance=0.0)
        return said, self.world.costs.probe


class SimulatedQueue(SimulatedRole):
    """The real queue, in an actor whose every operation takes a moment of its one core."""

    def __init__(self, world: World, queue: ReplayQueue) -> None:
        super().__init__("queue", world)
        self.line = Line(world.cores)
        self._queue = queue

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """Run calls side by side, as an asyncio actor does."""
        answer = asyncio.ensure_future(self._answer(method, args))
        if returns == 1:
            return answer
        return tuple(asyncio.ensure_future(_item(answer, index)) for index in range(returns))

    async def _answer(self, method: str, args: Sequence[Any]) -> Any:
        await self.world.driver.serve(self.world.costs.driver)
        values = [await each if isinstance(each, asyncio.Future) else each for each in args]
        await self.world.pass_on(method, values)
        await self.line.serve(self.world.costs.queue)
        if method == "lease":
            values = values[:2]  # nobody dies here: no need to look around once a minute
        return await getattr(self._queue, method)(*values)


class SimulatedPrompts:
    """Endless prompts of one token."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[Prompt]:
        """Return the next ``count``."""
        first, self._next = self._next, self._next + count
        return [self.prompt(Uid(0, ordinal, 0)) for ordinal in range(first, self._next)]

    def prompt(self, uid: Uid) -> Prompt:
        """Return the prompt of a uid."""
        return Prompt(uid=uid, row=uid.ordinal, prompt_ids_P=_TOKEN)


class SimulatedRecorder:
    """Remembers when steps were made; the driver of a ``world`` is busy with that."""

    def __init__(self, world: World | None = None) -> None:
        self._world = world
        self._booking: set[asyncio.Future[None]] = set()
        self.times: list[float] = []
        self._waiting: dict[int, asyncio.Event] = {}

    async def reached(self, steps: int) -> None:
        """Wait until so many steps were made."""
        if len(self.times) < steps:
            await self._waiting.setdefault(steps, asyncio.Event()).wait()

    def stepped(self, step: int, lease: Any, outcome: Any, pushed: Any, queue: Any) -> None:
        """Note the virtual second of a step."""
        if self._world:
            books = self._world.driver.serve(self._world.costs.step, calls=0)
            booking = asyncio.ensure_future(books)
            self._booking.add(booking)
            booking.add_done_callback(self._booking.discard)
        self.times.append(asyncio.get_running_loop().time())
        if event := self._waiting.get(len(self.times)):
            event.set()


class SimulatedSupervisor:
    """Nobody dies here."""

    async def persist(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Do ``work``."""
        return await work()

    async def revive(self, death: Exception) -> Mapping[str, Any]:
        """Refuse."""
        raise death
