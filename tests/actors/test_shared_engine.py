"""Several calls in one engine: who goes in when, who gets what, and what a failure does to them."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from actors.shared_engine import SharedEngine

pytestmark = pytest.mark.engine
"""It imports vLLM."""


class CountingEngine:
    """Answers a request after as many steps as its prompt's first token says."""

    def __init__(self) -> None:
        self.llm_engine = self
        self.left: dict[str, list[int]] = {}
        self.sizes: list[int] = []
        """Requests in the engine, step by step."""
        self.may_step = threading.Semaphore(0)
        self.fails = False

    def add_request(self, name: str, prompt: Any, parameters: Any) -> None:
        self.left[name] = [prompt["prompt_token_ids"][0], prompt["prompt_token_ids"][1]]

    def step(self) -> list[Any]:
        assert self.may_step.acquire(timeout=10)
        if self.fails:
            raise ValueError("kernel failed")
        self.sizes.append(len(self.left))
        for each in self.left.values():
            each[0] -= 1
        done = [name for name, (steps, _) in self.left.items() if not steps]
        return [
            SimpleNamespace(finished=True, request_id=name, mark=self.left.pop(name)[1])
            for name in reversed(done)
        ]


class Calls:
    """An engine that makes the steps it is given, and calls from threads of their own."""

    def __init__(self, width: int) -> None:
        self.engine = CountingEngine()
        self.shared = SharedEngine(self.engine, width)  # type: ignore[arg-type]
        self._pool = ThreadPoolExecutor(4)
        self._marks = iter(range(100))

    def ask(self, *steps: int) -> Future[list[int]]:
        """Ask for answers that take so many steps; their marks are numbers in order."""
        prompts = [[each, next(self._marks)] for each in steps]
        before = self._unanswered()
        future = self._pool.submit(self._run, prompts)
        while self._unanswered() < before + len(prompts):
            time.sleep(1e-3)
        return future

    def _unanswered(self) -> int:
        return len(self.shared._waiting) + len(self.shared._running)

    def _run(self, prompts: Sequence[list[int]]) -> list[int]:
        parameters: list[Any] = [SimpleNamespace() for _ in prompts]
        outputs: list[Any] = self.shared.run(prompts, parameters)
        return [output.mark for output in outputs]

    def end(self) -> None:
        """Let nobody wait for a step for ever."""
        self.engine.fails = True
        self.engine.may_step.release(1000)

    def step(self, times: int) -> None:
        """Let the engine make steps."""
        self.engine.may_step.release(times)


@pytest.fixture
def engine():
    """Makes ``Calls`` of a width."""
    made: list[Calls] = []

    def make(width: int) -> Calls:
        made.append(Calls(width))
        return made[-1]

    yield make
    for calls in made:
        calls.end()


def test_a_later_call_s_requests_take_the_places_of_those_that_end(engine):
    calls = engine(width=4)
    first = calls.ask(1, 1, 2, 6)
    second = calls.ask(3, 3, 3, 3)
    calls.step(6)
    assert first.result(10) == [0, 1, 2, 3]
    calls.step(1)
    assert second.result(10) == [4, 5, 6, 7]
    assert calls.engine.sizes == [4, 4, 4, 4, 3, 2, 1], "one after the other takes 6 + 3 steps"


def test_a_call_that_is_larger_than_the_width_goes_in_as_one(engine):
    calls = engine(width=2)
    only = calls.ask(1, 1, 1, 1, 1)
    calls.step(1)
    assert only.result(10) == [0, 1, 2, 3, 4] and calls.engine.sizes == [5]


def test_calls_that_end_early_are_answered_while_the_oldest_goes_on(engine):
    calls = engine(width=4)
    first = calls.ask(5)
    second = calls.ask(1)
    third = calls.ask(2)
    calls.step(3)  # the first had begun when they came
    assert second.result(10) == [1] and third.result(10) == [2] and not first.done()
    calls.step(2)
    assert first.result(10) == [0]
    fourth = calls.ask(1)
    calls.step(1)
    assert fourth.result(10) == [3], "someone else leads now"


def test_a_failed_step_fails_every_call_then_and_later(engine):
    calls = engine(width=4)
    first = calls.ask(3)
    second = calls.ask(3)
    calls.engine.fails = True
    calls.step(1)
    with pytest.raises(ValueError, match="kernel failed"):
        first.result(10)
    with pytest.raises(RuntimeError, match="has failed; build a new one") as told:
        second.result(10)
    assert told.value.__cause__ is first.exception(), "the log says why, whoever writes it"
    assert not calls.shared.alive
    with pytest.raises(RuntimeError, match="has failed"):
        calls.shared.run([[1, 0]], [SimpleNamespace()])  # type: ignore[list-item]
