"""Roles in real Ray actors: references, errors with their types, deaths, impossible requests."""

import asyncio
import os
import threading
import time
from functools import partial

import numpy as np
import pytest
import ray

from configs.cluster import ClusterConfig
from configs.errors import DataError, DependencyError
from orchestration.launcher import RayLauncher
from orchestration.placement import require_resources
from orchestration.roles import RoleError

pytestmark = pytest.mark.e2e


class Part:
    def __init__(self, name: str) -> None:
        if name == "broken":
            raise DataError("no such file: x.jsonl; give one that exists")
        self.name = name

    def double(self, values: np.ndarray) -> np.ndarray:
        return 2 * values

    def double_slowly(self, values: np.ndarray) -> np.ndarray:
        time.sleep(5)
        return 2 * values

    def two(self) -> tuple[str, str]:
        return self.name, os.environ.get("MARK", "")

    def fail(self) -> None:
        raise DataError("row 3 is bad")

    def die(self) -> None:
        os._exit(1)


class AsyncPart:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "woken"

    async def wake(self) -> None:
        self.event.set()


class Meeting:
    """Calls that end together."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def meet(self) -> int:
        return self.barrier.wait(20)


@pytest.fixture(scope="module")
def launcher():
    with RayLauncher(ClusterConfig(local_cpus=2), "test-roles") as launcher:
        yield launcher


def _part(launcher: RayLauncher, name: str = "ok"):
    return launcher.role("sampler-0", partial(Part, name), environment={"MARK": "set"})


def test_a_value_travels_from_role_to_role_by_reference(launcher):
    async def story():
        first, second = _part(launcher), _part(launcher)
        await asyncio.gather(first.call("build"), second.call("build"))
        doubled = await second.call("double", first.submit("double", np.arange(3)))
        name, mark = first.submit("two", returns=2)
        answer = doubled.tolist(), await first.fetch(name), await first.fetch(mark)
        clock = await first.call("clock")
        await asyncio.gather(first.stop(), second.stop())
        return answer, clock

    answer, clock = asyncio.run(story())
    assert answer == ([0, 4, 8], "ok", "set")
    assert [span.method for span in clock.spans if span.busy] == ["build", "double", "two"]


def test_who_waits_for_another_one_s_answer_is_alive_and_works(launcher):
    async def story():
        slow, waiting = _part(launcher), _part(launcher)
        await asyncio.gather(slow.call("build"), waiting.call("build"))
        doubled = waiting.submit("double", slow.submit("double_slowly", np.arange(3)))
        alive = await waiting.is_alive(2)
        works = await waiting.call("two", timeout=2)
        answer = await waiting.fetch(doubled)
        await asyncio.gather(slow.stop(), waiting.stop())
        return alive, works, answer.tolist()

    assert asyncio.run(story()) == (True, ("ok", "set"), [0, 4, 8])


def test_an_error_keeps_its_type_and_its_one_sentence(launcher):
    async def story():
        role = _part(launcher)
        await role.call("build")
        try:
            await role.call("double", role.submit("fail"))
        finally:
            await role.stop()

    with pytest.raises(DataError, match=r"^row 3 is bad$"):
        asyncio.run(story())


def test_an_error_while_building_keeps_its_type(launcher):
    with pytest.raises(DataError, match=r"x\.jsonl"):
        asyncio.run(_part(launcher, "broken").call("build"))


def test_a_dead_actor_is_named(launcher):
    async def story():
        role = _part(launcher)
        await role.call("build")
        await role.call("die")

    with pytest.raises(RoleError, match="sampler-0 died"):
        asyncio.run(story())


def test_a_call_to_a_restarted_part_waits_until_it_is_built(launcher):
    async def story():
        role = launcher.role("sampler-0", partial(Part, "ok"))
        try:
            await role.call("build")
            for _ in range(6):  # without the wait every other one came too early
                role.restart()
                built = role.submit("build")
                assert (await role.call("double", ray.put(np.ones(1)))).tolist() == [2]
                await role.fetch(built)
        finally:
            await role.stop()

    asyncio.run(story())


def test_a_death_is_named_by_the_one_that_died_whoever_waited_for_it(launcher):
    async def story():
        dying = launcher.role("sampler-1", partial(Part, "ok"))
        waiting = launcher.role("teacher-0", partial(Part, "ok"))
        await asyncio.gather(dying.call("build"), waiting.call("build"))
        try:
            await waiting.call("double", dying.submit("die"))
        finally:
            await waiting.stop()

    with pytest.raises(RoleError, match=r"^sampler-1 died \(.*why is in its log"):
        asyncio.run(story())


def test_a_part_takes_as_many_calls_at_once_as_it_has_threads(launcher):
    async def story():
        role = launcher.role("sampler-0", Meeting, calls_at_once=2)
        await role.call("build")
        answers = await asyncio.gather(role.call("meet", timeout=30), role.call("meet", timeout=30))
        clock = await role.call("clock")
        await role.stop()
        return answers, clock

    answers, clock = asyncio.run(story())
    assert sorted(answers) == [0, 1], "each waits for the other"
    assert [span.method for span in clock.spans if span.busy] == ["build", "meet", "meet"]


def test_an_asynchronous_part_serves_a_call_while_another_waits(launcher):
    async def story():
        role = launcher.role("queue", AsyncPart, asynchronous=True)
        await role.call("build")
        waiting = role.submit("wait")
        await role.call("wake")
        answer = await role.fetch(waiting)
        await role.stop()
        return answer

    assert asyncio.run(story()) == "woken"


def test_an_impossible_request_says_what_is_asked_and_what_there_is(launcher):
    config = ClusterConfig.model_validate({"sampler": {"cpus": 64}, "teacher": {"gpus": 1}})
    with pytest.raises(DependencyError, match=r"CPU: 64\.5 asked, 2 there; GPU: 1 asked, 0 there"):
        require_resources(config, {"sampler": 1, "teacher": 1})
