"""Lets calls of one part work side by side, and others alone, in the order in which they came."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Condition


class Turnstile:
    """Nobody is overtaken: who works alone waits for those before, and those behind wait for it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._tickets = count()
        self._there: dict[int, bool] = {}
        """Ticket of everyone at work or waiting → whether it works alone."""

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """Work while others may."""
        with self._in_turn(alone=False):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._in_turn(alone=True):
            yield

    @contextmanager
    def _in_turn(self, *, alone: bool) -> Iterator[None]:
        with self._changed:
            ticket = next(self._tickets)
            self._there[ticket] = alone
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._may(ticket))
            yield
        finally:
            with self._changed:
                del self._there[ticket]
                self._changed.notify_all()

    def _may(self, ticket: int) -> bool:
        before = [alone for other, alone in self._there.items() if other < ticket]
        return not (before if self._there[ticket] else any(before))
