"""A bound on how often something happens."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Keeps takes at least 60 / ``per_minute`` seconds apart; safe between threads.

    >>> RateLimit(None).take()
    """

    def __init__(
        self,
        per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``per_minute`` None is no bound; ``clock`` gives seconds, and ``sleep`` takes them."""
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait for the next turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)
