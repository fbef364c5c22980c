"""Who is restarted, how often, with which weights, and when the run does without."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from configs.supervision import SupervisionConfig
from orchestration import supervisor as supervising
from orchestration.assembly import Roles
from orchestration.roles import AnswerLost, Process, Role, RoleDied, RoleError
from orchestration.supervisor import Supervisor


class Part(Role):
    """Dies when it is told to, and comes back unless it is told not to."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 5)
        self.calls: list[str] = []
        self.answers = True
        self.fails = 0
        """Starts that fail from now on."""
        self.killed = 0
        self.was_killed = asyncio.Event()
        self.process = Process("here", 7)

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        async def answer() -> None:
            await asyncio.sleep(0)
            self.calls.append(method)
            if method == "build" and self.fails:
                self.fails -= 1
                raise RoleError(f"{self.name} cannot load its model")

        return asyncio.ensure_future(answer())

    async def stop(self) -> None:
        """Nothing to stop."""

    async def is_alive(self, timeout: float) -> bool:
        return self.answers

    def kill(self) -> None:
        self.killed += 1
        self.was_killed.set()

    def restart(self) -> None:
        self.life += 1
        self.answers = True
        self.process = None
        self.calls.append("restart")

    def died(self) -> RoleDied:
        return RoleDied(f"{self.name} died", role=self.name, life=self.life)


class Sync:
    """Remembers who was given weights."""

    def __init__(self) -> None:
        self.given: list[str] = []

    async def give(self, role: Role) -> None:
        self.given.append(role.name)


class Hub:
    """Remembers the newest values."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}

    def set(self, key: str, value: float, *, role: str) -> None:
        self.values[key, role] = value


class Book:
    """Remembers what a ledger would."""

    def __init__(self) -> None:
        self.restarts: list[tuple[str, str]] = []
        self.gone: list[str] = []

    def left(self, role: str, *, step: int) -> None:
        self.gone.append(role)

    def restarted(self, role: str, reason: str, *, seconds: float) -> None:
        assert seconds >= 0
        self.restarts.append((role, reason))


class Crew:
    """Two samplers, a teacher, a reference, learner and queue, under a real supervisor."""

    def __init__(self, **config: Any) -> None:
        names = ("sampler-0", "sampler-1", "teacher-0", "reference-0", "learner-0", "queue")
        self.parts = {name: Part(name) for name in names}
        self.samplers: list[Role] = [self.parts["sampler-0"], self.parts["sampler-1"]]
        self.said: list[str] = []
        self.sync, self.hub = Sync(), Hub()
        self.book = Book()
        learner = type("Group", (), {"ranks": [self.parts["learner-0"]], "step": 3})
        self.supervisor = Supervisor(
            SupervisionConfig(**{"backoff_seconds": 0, "health_every_seconds": 0.01, **config}),
            Roles(
                samplers=self.samplers,
                teachers=[self.parts["teacher-0"]],
                learner=learner,  # type: ignore[arg-type]
                queue=self.parts["queue"],
                reference=self.parts["reference-0"],
            ),
            sync=self.sync,  # type: ignore[arg-type]
            ledger=self.book,  # type: ignore[arg-type]
            hub=self.hub,  # type: ignore[arg-type]
            announce=self.said.append,
            start_timeout=5,
            report=lambda _: None,
        )

    def revive(self, *names: str) -> None:
        async def all_at_once() -> None:
            deaths = [self.parts[name].died() for name in names]
            await asyncio.gather(*(self.supervisor.revive(death) for death in deaths))

        asyncio.run(all_at_once())


def test_a_sampler_is_built_warmed_and_given_the_weights_that_the_others_hold():
    crew = Crew()
    crew.revive("sampler-1")
    assert crew.parts["sampler-1"].calls == ["restart", "build", "warm_up"]
    assert crew.sync.given == ["sampler-1"]
    assert crew.supervisor.restarts == {"sampler": 1}
    assert crew.hub.values == {("restarts", "sampler"): 1}
    assert "sampler-1 died. Restarting it (try 1)" in crew.said[0]
    assert crew.book.restarts == [("sampler-1", "sampler-1 died")]


@pytest.mark.parametrize("name", ["teacher-0", "reference-0"])
def test_who_holds_no_pushed_weights_is_given_none(name):
    crew = Crew()
    crew.revive(name)
    assert crew.parts[name].calls == ["restart", "build", "warm_up"]
    assert crew.sync.given == []


def test_two_who_waited_for_one_dead_part_restart_it_once():
    crew = Crew()
    crew.revive("sampler-0", "sampler-0")
    assert crew.parts["sampler-0"].life == 1
    assert crew.parts["sampler-0"].calls.count("build") == 1


def test_news_of_an_earlier_life_is_no_news():
    crew = Crew()
    death = crew.parts["sampler-0"].died()
    crew.revive("sampler-0")
    asyncio.run(crew.supervisor.revive(death))
    assert crew.parts["sampler-0"].life == 1


@pytest.mark.parametrize("name", ["learner-0", "queue"])
def test_a_learner_or_queue_is_not_restarted_under_the_loops(name):
    crew = Crew()
    with pytest.raises(RoleDied) as caught:
        crew.revive(name)
    assert caught.value.role == name
    assert crew.parts[name].calls == []


def test_a_start_that_fails_is_tried_again_and_the_waits_double(monkeypatch):
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    crew = Crew(backoff_seconds=25, max_restarts=5)
    crew.parts["teacher-0"].fails = 3
    # Only the supervisor's own clock stands still.
    monkeypatch.setattr(supervising, "asyncio", _Asyncio(sleep))
    crew.revive("teacher-0")
    assert waits == [25, 50, 60, 60]
    assert crew.supervisor.restarts == {"teacher": 1}
    assert "teacher-0 cannot load its model. Restarting it (try 4)" in crew.said[-1]


class _Asyncio:
    """The module, but for its clock."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def test_a_part_that_does_not_come_back_ends_the_run_with_its_reason():
    crew = Crew(max_restarts=3)
    crew.parts["teacher-0"].fails = 99
    with pytest.raises(
        RoleError, match=r"cannot load its model\. It was restarted 3 times"
    ) as caught:
        crew.revive("teacher-0")
    assert not isinstance(caught.value, RoleDied)
    assert crew.parts["teacher-0"].calls.count("build") == 3
    assert crew.supervisor.restarts == {}


@pytest.mark.parametrize("fails", [0, 99])
def test_a_sampler_that_leaves_while_it_is_revived_is_let_go_and_no_loss(fails: int):
    crew = Crew(backoff_seconds=0.02, max_restarts=3)
    leaver = crew.parts["sampler-1"]
    leaver.fails = fails

    async def story() -> None:
        reviving = asyncio.create_task(crew.supervisor.revive(leaver.died()))
        await asyncio.sleep(0.01)
        crew.samplers.remove(leaver)
        await reviving

    asyncio.run(story())
    assert leaver.killed, "nobody has it any more"
    assert crew.book.gone == []


def test_one_that_is_done_without_is_booked_as_gone():
    crew = Crew(max_restarts=1)
    crew.parts["sampler-1"].fails = 99
    crew.revive("sampler-1")
    assert crew.samplers == [crew.parts["sampler-0"]]
    assert crew.book.gone == ["sampler-1"]


def test_a_part_may_die_only_so_often_even_if_it_always_comes_back():
    crew = Crew(max_restarts=2)
    crew.revive("teacher-0")
    crew.revive("teacher-0")
    with pytest.raises(RoleError, match=r"as often as supervision\.max_restarts allows"):
        crew.revive("teacher-0")


def test_one_parts_deaths_are_not_counted_against_another():
    crew = Crew(max_restarts=1)
    crew.revive("sampler-0", "sampler-1")
    assert crew.supervisor.restarts == {"sampler": 2}


def test_the_run_goes_on_with_fewer_samplers_down_to_the_fewest_allowed():
    crew = Crew(max_restarts=1)
    crew.parts["sampler-0"].fails = crew.parts["sampler-1"].fails = 99
    crew.revive("sampler-0")
    assert [role.name for role in crew.samplers] == ["sampler-1"]
    assert crew.parts["sampler-0"].killed == 1
    assert "going on with 1 of the samplers" in crew.said[-1]
    crew.revive("sampler-0")  # nobody's business any more
    with pytest.raises(RoleError, match="sampler-1 cannot load"):
        crew.revive("sampler-1")
    assert [role.name for role in crew.samplers] == ["sampler-1"]


def test_a_part_that_is_silent_is_killed_for_those_who_wait_to_mend():
    crew = Crew()
    teacher = crew.parts["teacher-0"]
    teacher.answers = False

    async def story() -> None:
        watching = asyncio.create_task(crew.supervisor.watch())
        async with asyncio.timeout(5):
            await teacher.was_killed.wait()
        watching.cancel()

    asyncio.run(story())
    assert [part.name for part in crew.parts.values() if part.killed] == ["teacher-0"]
    assert teacher.calls == []


def test_a_full_disk_does_not_end_the_supervision(caplog):
    crew = Crew()
    tried = asyncio.Event()

    def report(_: Any) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    crew.supervisor.report = report

    async def story() -> None:
        watching = asyncio.create_task(crew.supervisor.watch())
        async with asyncio.timeout(5):
            await tried.wait()
            crew.parts["teacher-0"].answers = False
            await crew.parts["teacher-0"].was_killed.wait()
        watching.cancel()

    asyncio.run(story())
    assert "could not be written down" in caplog.text


@pytest.mark.parametrize(("answered", "killed"), [(False, 0), (True, 1)])
def test_a_part_that_is_being_restarted_may_be_silent_until_it_answered_once(answered, killed):
    """It may wait for its place; or it is up, and was stopped while its model loads."""
    crew = Crew()
    teacher = crew.parts["teacher-0"]
    teacher.restart()
    teacher.answers = False
    teacher.process = Process("here", 8) if answered else None

    async def story() -> None:
        async with crew.supervisor._locks.setdefault("teacher-0", asyncio.Lock()):
            await crew.supervisor._ask(teacher)

    asyncio.run(story())
    assert teacher.killed == killed


def test_an_answer_that_was_asked_of_an_earlier_life_kills_nobody():
    crew = Crew()
    teacher = crew.parts["teacher-0"]

    async def slow(timeout: float) -> bool:
        teacher.life += 1  # restarted while the question was on its way
        return False

    teacher.is_alive = slow  # type: ignore[method-assign]
    asyncio.run(crew.supervisor._ask(teacher))
    assert teacher.killed == 0


def test_work_is_done_again_after_every_death_that_can_be_mended():
    crew = Crew()
    tries = 0

    async def work() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise crew.parts["sampler-0"].died()
        return "done"

    assert asyncio.run(crew.supervisor.persist(work)) == "done"
    assert (tries, crew.parts["sampler-0"].life) == (3, 2)


def test_work_that_the_learner_died_over_is_not_done_again():
    crew = Crew()

    async def work() -> None:
        raise crew.parts["learner-0"].died()

    with pytest.raises(RoleDied, match="learner-0 died"):
        asyncio.run(crew.supervisor.persist(work))


def test_an_answer_that_was_lost_is_asked_for_again_a_few_times_and_nobody_restarted():
    crew = Crew(max_restarts=2)
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise AnswerLost("an answer that teacher-0 was to have is lost")

    with pytest.raises(RoleError, match="Answers were lost more than 2 times"):
        asyncio.run(crew.supervisor.persist(work))
    assert tries == 3
    assert all(part.life == 0 and not part.killed for part in crew.parts.values())
