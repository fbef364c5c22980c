"""Roles in this process: references, order, time-outs, the clock."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from configs.activities import TURN
from configs.cluster import ClusterConfig
from orchestration.launcher import LocalLauncher
from orchestration.local import LocalRole
from orchestration.roles import RoleError


class Part:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, text: str, seconds: float = 0.0) -> str:
        time.sleep(seconds)
        self.seen.append(text)
        return text

    def two(self) -> tuple[int, int]:
        return 1, 2

    def nothing(self) -> None:
        return None

    def fail(self) -> None:
        raise ValueError("told once")

    async def later(self, text: str) -> str:
        await asyncio.sleep(0)
        return text


def _with_role(story):
    async def run():
        part = Part()
        role = LocalRole("part-0", lambda: part, thread=ThreadPoolExecutor(1), timeout=5)
        await role.call("build")
        try:
            return await story(role, part)
        finally:
            await role.stop()

    return asyncio.run(run())


def test_a_reference_given_as_argument_arrives_as_its_value():
    async def story(role, part):
        return await role.call("later", role.submit("note", "a"))

    assert _with_role(story) == "a"


def test_calls_run_one_at_a_time_in_the_order_they_were_submitted():
    async def story(role, part):
        await asyncio.gather(role.submit("note", "slow", 0.05), role.submit("note", "quick"))
        return part.seen

    assert _with_role(story) == ["slow", "quick"]


def test_two_returns_are_two_references_and_none_is_two_nones():
    async def story(role, part):
        first, second = role.submit("two", returns=2)
        return [await second, await first, *[await r for r in role.submit("nothing", returns=2)]]

    assert _with_role(story) == [2, 1, None, None]


def test_a_call_that_takes_too_long_names_the_role():
    async def story(role, part):
        await role.call("note", "x", 0.3, timeout=0.05)

    with pytest.raises(RoleError, match=r"part-0 gave no answer in"):
        _with_role(story)


def test_the_clock_books_what_a_method_took():
    async def story(role, part):
        await role.call("restart_clock")
        await role.call("note", "x", 0.05)
        return await role.call("clock")

    reading = _with_role(story)
    assert 0.05 <= reading.busy["other"] <= reading.wall_seconds


def test_the_clock_is_read_while_the_part_works_and_tells_a_wait_for_its_turn_from_others():
    async def story(role, part):
        await role.call("restart_clock")
        first, second = role.submit("note", "x", 0.1), role.submit("note", "y", 0.1)
        await asyncio.sleep(0.05)
        reading = await role.call("clock")
        await asyncio.gather(first, second)
        return reading, await role.call("clock")

    early, late = _with_role(story)
    assert early.busy["other"] > 0.03 and early.waiting_seconds == 0
    assert late.idle.get(TURN, 0.0) < 0.05, "it worked meanwhile: nobody waited"
    assert late.wall_seconds == pytest.approx(
        late.busy["other"] + sum(late.idle.values()) + late.waiting_seconds, abs=1e-6
    )


class Engine:
    """Like vLLM, keeps what it is doing in a global."""

    running: list[int] = []  # noqa: RUF012
    threads: set[int] = set()  # noqa: RUF012

    def compute(self) -> int:
        self.running.append(1)
        self.threads.add(threading.get_ident())
        time.sleep(0.02)
        at_once = len(self.running)
        self.running.pop()
        return at_once


def test_two_engines_of_one_process_never_compute_at_the_same_time():
    async def story():
        with LocalLauncher(ClusterConfig(local=True)) as launcher:
            roles = [launcher.role(f"sampler-{i}", Engine) for i in range(2)]
            await asyncio.gather(*(role.call("build") for role in roles))
            return await asyncio.gather(*(role.call("compute") for role in roles * 3))

    assert asyncio.run(story()) == [1] * 6
    assert len(Engine.threads) == 1


def test_an_error_that_nobody_waits_for_leaves_no_trace(caplog):
    async def story(role, part):
        first, second = role.submit("fail", returns=2)
        with pytest.raises(ValueError, match="told once"):
            await role.fetch(first)
        del second

    gc.collect()  # the traces of other tests, of killed parts, are not this one's
    caplog.clear()
    _with_role(story)
    gc.collect()
    assert "never retrieved" not in caplog.text
