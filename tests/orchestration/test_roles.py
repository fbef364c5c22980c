"""What a handle on a part does with time: limits, and cancellations in the worst moment."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestration.local import LocalRole
from orchestration.roles import RoleError


def role() -> LocalRole:
    return LocalRole("part-0", object, thread=ThreadPoolExecutor(1), timeout=5)


def test_an_answer_that_does_not_come_in_time_is_an_error_that_names_the_part():
    async def story() -> None:
        await role().fetch(asyncio.get_running_loop().create_future(), timeout=0.01)

    with pytest.raises(RoleError, match="part-0 gave no answer in 0 s"):
        asyncio.run(story())


def test_a_caller_that_is_cancelled_as_the_answer_comes_is_cancelled():
    async def story() -> None:
        answer = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(role().fetch(answer))
        await asyncio.sleep(0)
        answer.set_result("late")
        waiting.cancel()
        await waiting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(story())
