"""A set of uids that stays small however long the run is."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from configs.wire import Uid


class _Runs(NamedTuple):
    """Runs of consecutive ordinals, apart from each other and in order."""

    starts: list[int]
    stops: list[int]
    """One behind the last of each; a list of its own, which bisection searches fastest."""


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
        self._runs: dict[tuple[int, int], _Runs] = {}
        self._count = 0

    def add(self, uid: Uid) -> bool:
        """Add ``uid``; returns False when it was there already."""
        epoch, ordinal, sample = uid
        starts, stops = self._runs.setdefault((epoch, sample), _Runs([], []))
        here = bisect_right(starts, ordinal)
        if here and ordinal < stops[here - 1]:
            return False
        self._count += 1
        joins_left = here > 0 and stops[here - 1] == ordinal
        joins_right = here < len(starts) and starts[here] == ordinal + 1
        if joins_left and joins_right:
            del stops[here - 1], starts[here]
        elif joins_left:
            stops[here - 1] = ordinal + 1
        elif joins_right:
            starts[here] = ordinal
        else:
            starts.insert(here, ordinal)
            stops.insert(here, ordinal + 1)
        return True

    def update(self, uids: Iterable[Uid]) -> None:
        """Add them all."""
        for uid in uids:
            self.add(uid)

    def discard(self, uid: Uid) -> bool:
        """Take ``uid`` out; returns False when it was not there."""
        if uid not in self:
            return False
        starts, stops = self._runs[(uid.epoch, uid.sample)]
        here = bisect_right(starts, uid.ordinal) - 1
        parts = [(starts[here], uid.ordinal), (uid.ordinal + 1, stops[here])]
        kept = [part for part in parts if part[0] < part[1]]
        starts[here : here + 1] = [start for start, _ in kept]
        stops[here : here + 1] = [stop for _, stop in kept]
        self._count -= 1
        return True

    def __contains__(self, uid: Uid) -> bool:
        """Whether ``uid`` was added."""
        epoch, ordinal, sample = uid
        runs = self._runs.get((epoch, sample))
        if runs is None:
            return False
        here = bisect_right(runs.starts, ordinal)
        return here > 0 and ordinal < runs.stops[here - 1]

    def __len__(self) -> int:
        """Return the number of uids."""
        return self._count

    def __iter__(self) -> Iterator[Uid]:
        """Yield every uid, by sample and epoch."""
        for (epoch, sample), runs in self._runs.items():
            for start, stop in zip(*runs, strict=True):
                yield from (Uid(epoch, ordinal, sample) for ordinal in range(start, stop))

    def as_runs(self) -> list[list[int]]:
        """Return ``[epoch, sample, start, stop]`` of every run, sorted: plain JSON."""
        return sorted(
            [epoch, sample, start, stop]
            for (epoch, sample), runs in self._runs.items()
            for start, stop in zip(*runs, strict=True)
        )

    @classmethod
    def of_runs(cls, runs: Sequence[Sequence[int]]) -> "UidSet":
        """Return the set that ``as_runs`` wrote down."""
        uids = cls()
        for epoch, sample, start, stop in sorted(tuple(run) for run in runs):
            starts, stops = uids._runs.setdefault((epoch, sample), _Runs([], []))
            starts.append(start)
            stops.append(stop)
            uids._count += stop - start
        return uids

    @property
    def runs(self) -> int:
        """Number of runs held: what the memory grows with."""
        return sum(len(runs.starts) for runs in self._runs.values())
