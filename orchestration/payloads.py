"""Where the contents of queued tuples lie: with whoever made them, until a learner fetches them.

The queue knows tuples by their heads. What is in them travels once, from its maker to the learner,
by references that this process hands on, and opens only to have a stale pair redrawn.
"""

from collections.abc import Iterable, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple

from configs.packing import unpack
from configs.wire import PreferenceTuple, Uid
from orchestration.roles import Role


class Picked(NamedTuple):
    """A batch, as a learner's rank is to find it."""

    places: list[tuple[int, int]]
    """Of every tuple: which of ``batches`` it is in, and where in it."""
    batches: list[Any]
    """References to packed batches."""


class Payloads:
    """Uid → the batch that it was made in, and its place there."""

    def __init__(self) -> None:
        self._found: dict[Uid, tuple[Any, int]] = {}

    def __len__(self) -> int:
        return len(self._found)

    @property
    def uids(self) -> set[Uid]:
        """All that it knows."""
        return set(self._found)

    def add(self, uids: Sequence[Uid], batch: Any) -> None:
        """Remember where tuples are, which ``batch`` has in this order.

        Of tuples that are there already the first stay, as in the queue.
        """
        for place, uid in enumerate(uids):
            self._found.setdefault(uid, (batch, place))

    def pick(self, uids: Iterable[Uid]) -> Picked:
        """Return where ``uids`` are, in their order; raises KeyError for one that is not here."""
        which: dict[int, int] = {}
        picked = Picked([], [])
        for uid in uids:
            batch, place = self._found[uid]
            if id(batch) not in which:
                which[id(batch)] = len(picked.batches)
                picked.batches.append(batch)
            picked.places.append((which[id(batch)], place))
        return picked

    async def read(self, uids: Iterable[Uid], *, through: Role) -> list[PreferenceTuple]:
        """Bring contents here, as nobody else does; raises as the role's ``fetch`` does."""
        places, batches = self.pick(uids)
        here = [await through.fetch(each) if isawaitable(each) else each for each in batches]
        return unpack(here[which][place] for which, place in places)

    def withdraw(self, uids: Iterable[Uid], batch: Any) -> None:
        """Take an ``add`` back: ``batch`` could not be made."""
        self.forget(uid for uid in uids if self._found.get(uid, (None, 0))[0] is batch)

    def clear(self) -> None:
        """Let go of everything."""
        self._found.clear()

    def forget(self, uids: Iterable[Uid]) -> None:
        """Let go of tuples that are learned from or given up; a batch goes with its last one."""
        for uid in uids:
            self._found.pop(uid, None)
