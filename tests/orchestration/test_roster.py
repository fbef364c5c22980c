"""Samplers that join and leave: who is placed, who is taken in, who is let go, and who never is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.supervision import SupervisionConfig
from orchestration.assembly import Roles
from orchestration.roles import AnswerLost, Role, RoleDied
from orchestration.roster import Roster


class Sampler(Role):
    """Comes up when the cluster has room, unless it is told to fail."""

    def __init__(self, name: str, room: asyncio.Event, fails: str | None = None) -> None:
        super().__init__(name, 5)
        self.room = room
        self.fails = fails
        """The call that fails."""
        self.calls: list[str] = []
        self.ended = False
        self.placed = False

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        async def answer() -> None:
            if not self.placed:  # who has a place keeps it
                await self.room.wait()
                self.placed = True
            await asyncio.sleep(0)
            self.calls.append(method)
            if method == self.fails:
                raise DataError(f"{self.name} has no model")

        return asyncio.ensure_future(answer())

    async def stop(self) -> None:
        self.ended = True

    def kill(self) -> None:
        self.ended = True


class Sync:
    """Remembers who was given weights, and that none travelled meanwhile."""

    takes_newcomers = True

    def __init__(self) -> None:
        self.given: list[str] = []
        self.error: Exception | None = None
        self.resting = False

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        self.resting = True
        yield
        self.resting = False

    async def give(self, role: Role) -> None:
        assert self.resting, "a push is under way, perhaps"
        if self.error:
            error, self.error = self.error, None
            raise error
        self.given.append(role.name)


class Book:
    """Remembers who came and went."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []

    def joined(self, role: str, *, step: int) -> None:
        self.events.append(("joined", role, step))

    def left(self, role: str, *, step: int) -> None:
        self.events.append(("left", role, step))


class Hub:
    """Remembers the newest values."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def set(self, key: str, value: float, *, state: str) -> None:
        assert key == "samplers"
        self.values[state] = value


class Job:
    """One sampler under a real roster."""

    def __init__(self, *, wanted: int = 1, **config: Any) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.placed: list[Sampler] = []
        self.fails: list[str | None] = []
        """The call that fails, of those that are placed next."""
        first = Sampler("sampler-0", self.room)
        self.samplers: list[Role] = [first]
        self.wanted = wanted
        self.parted: list[str] = []
        """Who was looked at a last time."""
        self.sync, self.book, self.hub, self.said = Sync(), Book(), Hub(), []
        quick = {"backoff_seconds": 0, "health_every_seconds": 0.001}
        self.apart: list[Role] = []
        self.roster = Roster(
            SupervisionConfig(**{**quick, **config}),
            Roles(
                samplers=self.samplers,
                teachers=[],
                learner=None,  # type: ignore[arg-type]
                queue=first,
                apart=self.apart,
            ),
            place=self.place,
            wanted=lambda: self.wanted,
            sync=self.sync,  # type: ignore[arg-type]
            ledger=self.book,  # type: ignore[arg-type]
            hub=self.hub,  # type: ignore[arg-type]
            announce=self.said.append,
            part_with=self.part_with,
            start_timeout=5,
        )

    def place(self, name: str) -> Role:
        sampler = Sampler(name, self.room, self.fails.pop(0) if self.fails else None)
        self.placed.append(sampler)
        return sampler

    async def part_with(self, role: Role) -> None:
        self.parted.append(role.name)

    def names(self) -> list[str]:
        return [role.name for role in self.samplers]

    async def a_while(self) -> None:
        """Let the roster look, and newcomers come up."""
        watching = asyncio.create_task(self.roster.watch())
        for _ in range(25):  # turns of the loop, however slow the machine
            await asyncio.sleep(0.001)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_a_newcomer_is_built_and_warm_and_holds_the_weights_before_it_joins():
    async def story() -> None:
        job = Job(wanted=2)
        await job.a_while()
        assert job.names() == ["sampler-0"], "not before a step is made"
        await job.roster.change(7)
        assert job.names() == ["sampler-0", "sampler-1"]
        assert job.placed[0].calls == ["restart_clock", "build", "warm_up", "restart_clock"]
        assert job.sync.given == ["sampler-1"]
        assert job.book.events == [("joined", "sampler-1", 7)]
        assert job.hub.values == {"drawing": 2, "coming": 0, "wanted": 2}
        await job.roster.stop()

    asyncio.run(story())


def test_a_newcomer_waits_as_long_as_the_cluster_has_no_place():
    async def story() -> None:
        job = Job(wanted=3)
        job.room.clear()
        await job.a_while()
        await job.roster.change(1)
        assert job.names() == ["sampler-0"]
        assert len(job.placed) == 2, "each is asked for once"
        assert job.hub.values == {"drawing": 1, "coming": 2, "wanted": 3}
        job.room.set()
        await job.a_while()
        await job.roster.change(2)
        assert job.names() == ["sampler-0", "sampler-1", "sampler-2"]
        await job.roster.stop()

    asyncio.run(story())


def test_who_is_not_wanted_any_more_is_called_off_or_leaves_behind_its_last_call():
    async def story() -> None:
        job = Job(wanted=2)
        await job.a_while()
        await job.roster.change(1)
        job.wanted, leaver = 3, job.samplers[1]
        job.room.clear()
        await job.a_while()
        job.wanted = 1
        await job.a_while()
        assert job.placed[1].ended, "the one that had no place yet"
        with leaver.serving():
            await job.roster.change(2)
            assert job.names() == ["sampler-0"]
            await job.a_while()
            assert not job.placed[0].ended, "somebody waits for what it draws"
        await job.a_while()
        assert job.placed[0].ended
        assert job.parted == [leaver.name]
        assert job.book.events[-1] == ("left", leaver.name, 2)
        await job.roster.stop()

    asyncio.run(story())


def test_a_run_never_has_fewer_than_it_cannot_be_without():
    async def story() -> None:
        job = Job(wanted=3, min_samplers=2)
        await job.a_while()
        await job.roster.change(1)
        job.wanted = 1
        await job.a_while()
        await job.roster.change(2)
        assert job.names() == ["sampler-0", "sampler-1"]
        await job.roster.stop()

    asyncio.run(story())


def test_one_that_does_not_come_up_is_ended_and_another_is_tried():
    async def story() -> None:
        job = Job(wanted=2)
        job.fails = ["build", "warm_up"]
        await job.a_while()
        await job.roster.change(3)
        assert job.names() == ["sampler-0", "sampler-3"], "a name is given once"
        assert [sampler.ended for sampler in job.placed] == [True, True, False]
        assert "sampler-1 has no model" in job.said[0]
        await job.roster.stop()

    asyncio.run(story())


def test_one_that_dies_before_it_joins_is_left_out():
    async def story() -> None:
        job = Job(wanted=2)
        await job.a_while()
        job.sync.error = RoleDied("sampler-1 died", role="sampler-1", life=0)
        await job.roster.change(1)
        assert job.names() == ["sampler-0"]
        await job.a_while()
        await job.roster.change(2)
        assert job.names() == ["sampler-0", "sampler-2"]
        await job.roster.stop()

    asyncio.run(story())


def test_one_that_cannot_take_the_weights_is_left_out_and_the_run_goes_on():
    async def story() -> None:
        job = Job(wanted=2)
        await job.a_while()
        job.sync.error = RuntimeError("CUDA out of memory")
        await job.roster.change(1)
        assert (job.names(), job.placed[0].ended) == (["sampler-0"], True)
        assert "CUDA out of memory. The run goes on without sampler-1" in job.said[0]
        await job.roster.stop()

    asyncio.run(story())


def test_the_ready_are_let_go_when_they_are_not_wanted_any_more():
    async def story() -> None:
        job = Job(wanted=4)
        await job.a_while()
        assert [role.name for role in job.apart] == ["sampler-1", "sampler-2", "sampler-3"]
        job.wanted = 2
        await job.a_while()
        assert [sampler.ended for sampler in job.placed] == [False, True, True]
        assert [role.name for role in job.apart] == ["sampler-1"]
        await job.roster.stop()
        assert all(sampler.ended for sampler in job.placed)

    asyncio.run(story())


def test_a_thousand_that_are_wanted_do_not_come_at_once():
    async def story() -> None:
        job = Job(wanted=1000)
        job.room.clear()
        await job.a_while()
        assert len(job.placed) == 8
        await job.roster.stop()
        assert all(sampler.ended for sampler in job.placed)

    asyncio.run(story())


def test_where_the_weights_are_lost_it_joins_behind_the_next_push():
    async def story() -> None:
        job = Job(wanted=2)
        await job.a_while()
        job.sync.error = AnswerLost("the learner's machine is gone")
        await job.roster.change(1)
        assert job.names() == ["sampler-0"]
        await job.roster.change(2)
        assert job.names() == ["sampler-0", "sampler-1"]
        await job.roster.stop()

    asyncio.run(story())


def test_nobody_joins_where_weights_travel_by_a_way_that_is_opened_once():
    async def story() -> None:
        job = Job(wanted=2)
        job.sync.takes_newcomers = False
        await job.a_while()
        await job.roster.change(1)
        assert (job.placed, job.names()) == ([], ["sampler-0"])

    asyncio.run(story())


ACTIONS = st.one_of(
    st.tuples(st.just("want"), st.integers(1, 5)),
    st.tuples(st.just("step"), st.just(0)),
    st.tuples(st.just("wait"), st.just(0)),
    st.tuples(st.just("room"), st.booleans()),
    st.tuples(st.just("fail"), st.sampled_from(["restart_clock", "build", "warm_up"])),
    st.tuples(st.just("lose"), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25), least=st.integers(1, 2))
def test_whatever_happens_nobody_is_left_behind_and_the_wish_comes_true(actions, least):
    async def story() -> None:
        job = Job(wanted=least, min_samplers=least)
        for step, (what, value) in enumerate(actions):
            await _act(job, what, value, step)
            await _hold(job, least)
        job.wanted = max(job.wanted, least)
        job.room.set()
        job.fails = []
        for step in range(8):
            await job.a_while()
            await job.roster.change(step)
        assert len(job.samplers) == job.wanted
        await job.roster.stop()
        alive = {sampler.name for sampler in job.placed if not sampler.ended}
        assert alive == {name for name in job.names() if name != "sampler-0"}

    asyncio.run(story())


async def _act(job: Job, what: str, value: Any, step: int) -> None:
    match what:
        case "want":
            job.wanted = value
        case "step":
            await job.roster.change(step)
        case "wait":
            await job.a_while()
        case "room":
            (job.room.set if value else job.room.clear)()
        case "fail":
            job.fails.append(value)
        case "lose" if len(job.samplers) > 1:  # as the supervisor does
            role = job.samplers.pop()
            role.kill()


async def _hold(job: Job, least: int) -> None:
    names = [sampler.name for sampler in job.placed]
    assert len(set(names)) == len(names), "a name was given twice"
    joined = {name for kind, name, _ in job.book.events if kind == "joined"}
    assert joined <= set(job.sync.given), "one drew without the weights"
    assert not any(role.ended for role in job.samplers if isinstance(role, Sampler))
    assert len(job.samplers) >= 1
    assert len(set(job.apart)) == len(job.apart), "one is watched twice"
