"""Draws side by side, pushes alone, nobody overtaken."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.turnstile import Turnstile


class Watched:
    """Calls that note when they begin and end, and end when they are told to."""

    def __init__(self) -> None:
        self._turnstile = Turnstile()
        self._pool = ThreadPoolExecutor(16)
        self._ends: list[threading.Event] = []
        self.began: list[threading.Event] = []
        self._calls = []

    def call(self, *, alone: bool) -> int:
        """Come in, and return once that is noted."""
        number, before = len(self.began), len(self._turnstile._there)
        self.began.append(threading.Event())
        self._ends.append(threading.Event())
        self._calls.append(self._pool.submit(self._work, number, alone))
        while len(self._turnstile._there) == before:
            pass
        return number

    def _work(self, number: int, alone: bool) -> None:
        turn = self._turnstile.alone() if alone else self._turnstile.side_by_side()
        with turn:
            self.began[number].set()
            self._ends[number].wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no thread behind, wherever an example ends."""
        for end in self._ends:
            end.set()
        self._pool.shutdown()

    def end(self, number: int) -> None:
        """Let a call end, and wait until it has."""
        self._ends[number].set()
        self._calls[number].result(10)


def has_begun(event: threading.Event) -> bool:
    return event.wait(10)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_who_came_before_a_call_that_works_alone_is_done_before_it_and_nobody_beside_it(
    kinds, random
):
    with Watched() as watched:
        calls = [watched.call(alone=alone) for alone in kinds]
        there = list(calls)
        while there:
            alone = [number for number in there if kinds[number]]
            first = alone[0] if alone else len(kinds)
            may = [there[0]] if kinds[there[0]] else [number for number in there if number < first]
            assert all(has_begun(watched.began[number]) for number in may)
            assert not any(watched.began[number].is_set() for number in set(there) - set(may))
            ending = random.choice(may)
            watched.end(ending)
            there.remove(ending)


def test_a_call_that_fails_lets_the_next_one_in():
    turnstile, entered = Turnstile(), []

    def enter(how: str) -> None:
        with getattr(turnstile, how)():
            entered.append(how)
            raise ValueError("failed")

    order = ["alone", "alone", "side_by_side", "alone"]
    with ThreadPoolExecutor(1) as pool:
        for how in order:
            with pytest.raises(ValueError, match="failed"):
                pool.submit(enter, how).result(10)
    assert entered == order
