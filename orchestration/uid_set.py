"""A set of uids that stays small however long the run is."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from configs.wire import Uid


class UidSet:
    """Holds uids as runs of consecutive ordinals, one list of runs per (epoch, sample).

    Uids are issued in order and finished nearly in order, so a set of finished uids is one
    run from the first to the *frontier*, plus the few finished above it: memory grows with
    the number of holes, not with the number of uids.

    >>> uids = UidSet()
    >>> [uids.add(Uid(0, ordinal, 0)) for ordinal in (0, 2, 1, 1)]
    [True, True, True, False]
    >>> uids.runs
    1
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._count = 0

    def add(self, uid: Uid) -> bool:
        """Add ``uid``; returns False when it was there already."""
        runs = self._runs.setdefault((uid.epoch, uid.sample), [])
        here = bisect_right(runs, uid.ordinal, key=_start)
        if here and uid.ordinal < runs[here - 1][1]:
            return False
        joins_left = bool(here) and runs[here - 1][1] == uid.ordinal
        joins_right = here < len(runs) and runs[here][0] == uid.ordinal + 1
        start = runs[here - 1][0] if joins_left else uid.ordinal
        stop = runs[here][1] if joins_right else uid.ordinal + 1
        runs[here - joins_left : here + joins_right] = [(start, stop)]
        self._count += 1
        return True

    def discard(self, uid: Uid) -> bool:
        """Take ``uid`` out; returns False when it was not there."""
        if uid not in self:
            return False
        runs = self._runs[(uid.epoch, uid.sample)]
        here = bisect_right(runs, uid.ordinal, key=_start) - 1
        start, stop = runs[here]
        parts = [(start, uid.ordinal), (uid.ordinal + 1, stop)]
        runs[here : here + 1] = [part for part in parts if part[0] < part[1]]
        self._count -= 1
        return True

    def __contains__(self, uid: Uid) -> bool:
        """Whether ``uid`` was added."""
        runs = self._runs.get((uid.epoch, uid.sample), [])
        here = bisect_right(runs, uid.ordinal, key=_start)
        return bool(here) and uid.ordinal < runs[here - 1][1]

    def __len__(self) -> int:
        """Return the number of uids."""
        return self._count

    def __iter__(self) -> Iterator[Uid]:
        """Yield every uid, by sample and epoch."""
        for (epoch, sample), runs in self._runs.items():
            for start, stop in runs:
                yield from (Uid(epoch, ordinal, sample) for ordinal in range(start, stop))

    def as_runs(self) -> list[list[int]]:
        """Return ``[epoch, sample, start, stop]`` of every run, sorted: plain JSON."""
        return sorted(
            [epoch, sample, start, stop]
            for (epoch, sample), runs in self._runs.items()
            for start, stop in runs
        )

    @classmethod
    def of_runs(cls, runs: Sequence[Sequence[int]]) -> "UidSet":
        """Return the set that ``as_runs`` wrote down."""
        uids = cls()
        for epoch, sample, start, stop in runs:
            uids._runs.setdefault((epoch, sample), []).append((start, stop))
            uids._count += stop - start
        for found in uids._runs.values():
            found.sort()
        return uids

    @property
    def runs(self) -> int:
        """Number of runs held: what the memory grows with."""
        return sum(len(runs) for runs in self._runs.values())


def _start(run: tuple[int, int]) -> int:
    return run[0]
