"""Accounts for every second of a part: busy with something, or idle and waiting for something."""

import threading
import time
from collections import defaultdict, deque
from typing import NamedTuple

from configs.activities import TURN, activity_of

MOST_SPANS = 10_000
"""Spans kept for the next reading; of a part that nobody reads, the newest."""


class Span(NamedTuple):
    """A stretch of a part's time."""

    start: float
    """Unix time."""
    seconds: float
    busy: bool
    what: str
    """What was done, or waited for (``configs.activities``)."""
    method: str
    """The method that was run, or whose call ended the wait."""


class Reading(NamedTuple):
    """A clock's account since its start. The three kinds of seconds add up to ``wall_seconds``."""

    wall_seconds: float
    busy: dict[str, float]
    """Seconds by what was done, a call under way included."""
    idle: dict[str, float]
    """Seconds by what was waited for, the wait under way left out."""
    waiting_seconds: float
    """The wait under way: what it is for, only its end will say. 0: at work."""
    spans: list[Span]
    """What ended since the last reading that took them."""


class BusyClock:
    """A part's clock; any thread may read it while the part works.

    Where calls overlap, every second is booked once: to the call that has been there longest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = time.time() - time.monotonic()
        self._under_way: list[str] = []
        """Methods at work, the oldest first."""
        self._since = time.monotonic()
        self._spans: deque[Span] = deque(maxlen=MOST_SPANS)
        self.restart()

    def restart(self) -> None:
        """Set the accounts to zero: the run proper begins now. Whatever is under way goes on."""
        with self._lock:
            self._born = time.monotonic()
            self._busy: defaultdict[str, float] = defaultdict(float)
            self._idle: defaultdict[str, float] = defaultdict(float)

    def begin(self, method: str, came: float | None = None) -> None:
        """Book the wait that ends here.

        ``came`` is when the call came in, of ``time.monotonic``: from then on it was its turn that
        the part waited for. None: it comes just now.
        """
        with self._lock:
            now = time.monotonic()
            if not self._under_way:
                turn = now if came is None else max(came, self._since)
                self._book(self._idle, activity_of(method).awaits, turn, method)
                self._book(self._idle, TURN, now, method)
            self._under_way.append(method)

    def end(self, method: str) -> None:
        """Book the call of ``method`` that ends here."""
        with self._lock:
            assert method in self._under_way, f"no call of {method} was begun"
            oldest = self._under_way[0]
            self._book(self._busy, activity_of(oldest).name, time.monotonic(), oldest)
            self._under_way.remove(method)

    def read(self, *, take_spans: bool = False) -> Reading:
        """Return the account; the spans, where they are taken, are returned once."""
        with self._lock:
            now = time.monotonic()
            busy, under_way = dict(self._busy), now - max(self._since, self._born)
            if self._under_way:
                activity = activity_of(self._under_way[0]).name
                busy[activity] = busy.get(activity, 0.0) + under_way
            spans = list(self._spans) if take_spans else []
            if take_spans:
                self._spans.clear()
            waiting = 0.0 if self._under_way else under_way
            return Reading(now - self._born, busy, dict(self._idle), waiting, spans)

    def _book(self, account: defaultdict[str, float], what: str, until: float, method: str) -> None:
        start, self._since = self._since, until
        if until > start:
            span = Span(self._epoch + start, until - start, account is self._busy, what, method)
            self._spans.append(span)
        if until > max(start, self._born):
            account[what] += until - max(start, self._born)
