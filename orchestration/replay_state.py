"""What the replay queue knows about every uid: states and transitions, without any waiting.

What happens to a uid, from its first ``put`` on:

       put            lease              ack
    ─────────► queued ───────► leased ─────────► acked
                 │ ▲  ◄─────────┘
            lease│ │  release, expiry            (from every state: drop ─► dropped)
                 ▼ │put
               stale ─────────► redrawing
                     take_stale

At every moment seen = queued + leased + stale + redrawing + acked + dropped.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from heapq import nsmallest
from secrets import token_hex
from typing import Any, Literal

from configs.replay import ReplayConfig
from configs.wire import TupleHead, Uid, Uids
from orchestration.uid_set import UidSet

Verdict = Literal["accepted", "duplicates", "late"]
"""What a put does with a tuple. ``duplicates``: its uid is in the queue or leased;
``late``: it is acked or dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Names the tuples that were handed to a learner. Made by ``lease``, ended by ``ack``.

    An empty lease (no uids) needs no ack: the wait timed out, or stale tuples were found and
    want redrawing, or the queue is exhausted.
    """

    id: str
    """Unique over the lives of the queue: a lease of a dead queue names none of this one."""
    uids: tuple[Uid, ...]
    """In ascending order, as the tuples are."""
    weight_versions: tuple[int | None, ...]
    """Per uid; None where there is no student response."""
    lags: tuple[int, ...]
    """Learner version minus weight version, of the tuples that have a student response."""
    stale: tuple[Uid, ...]
    """Found too old by this call; ``take_stale`` hands them out."""
    exhausted: bool = False
    """The queue is closed and nothing is left in it or on its way back: leasing is over."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Say what pickle is to keep: plain numbers."""
        uids = {"uids": Uids(self.uids), "stale": Uids(self.stale)}
        rest = {"weight_versions": list(self.weight_versions), "lags": list(self.lags)}
        return _lease_of, (self.id, self.exhausted, uids | rest)


def _lease_of(name: str, exhausted: bool, many: dict[str, list[Any]]) -> Lease:
    return Lease(id=name, exhausted=exhausted, **{key: tuple(each) for key, each in many.items()})


@dataclass(frozen=True, slots=True)
class _LiveLease:
    uids: set[Uid]
    deadline: float


class ReplayState:
    """The held tuples and the state of every uid. Every method is one transition."""

    def __init__(self, config: ReplayConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._held: dict[Uid, TupleHead] = {}
        self._bytes = 0
        self._queued: set[Uid] = set()
        self._oldest: float = math.inf
        """No queued tuple was drawn by older weights: most calls need not look at each of them."""
        self._stale: set[Uid] = set()
        self._redrawing: dict[Uid, int] = {}
        """With the bytes that each had: its room is kept, or it could wait for ever to come back
        while new tuples fill the queue and nobody leases."""
        self._leases: dict[str, _LiveLease] = {}
        self._expired: dict[str, set[Uid]] = {}
        self._acked = UidSet()
        self._dropped = UidSet()
        self._life = token_hex(4)
        self.counts: Counter[str] = Counter()

    @property
    def queued(self) -> int:
        """Number of tuples that a lease could take."""
        return len(self._queued)

    @property
    def only_queued(self) -> bool:
        """Whether nothing but a lease can make room: no tuple is leased, stale or redrawn."""
        return len(self._queued) == len(self._held) + len(self._redrawing)

    @property
    def coming_back(self) -> bool:
        """Whether stale tuples have yet to return, redrawn."""
        return bool(self._stale or self._redrawing)

    @property
    def empty(self) -> bool:
        """Whether every uid seen is acked or dropped."""
        return not self._held and not self._redrawing

    def knows(self, uid: Uid) -> bool:
        """Whether the uid was seen before."""
        return uid in self._held or uid in self._redrawing or self._done(uid)

    def verdict(self, uid: Uid) -> Verdict:
        """Say what a put of this uid would do now."""
        if self._done(uid):
            return "late"
        return "duplicates" if uid in self._held else "accepted"

    def fits(self, pair: TupleHead) -> bool:
        """Whether a tuple may be added: anything fits an empty queue, and what comes back redrawn
        has its room still.
        """
        taken = len(self._held) + len(self._redrawing)
        if not taken or pair.uid in self._redrawing:
            return True
        nbytes = self._bytes + sum(self._redrawing.values()) + pair.nbytes
        return taken < self._config.max_tuples and nbytes <= self._config.max_bytes

    def admit(self, pair: TupleHead) -> Verdict:
        """Add a tuple if its verdict is ``accepted``; returns the verdict."""
        verdict = self.verdict(pair.uid)
        if verdict == "accepted":
            self._redrawing.pop(pair.uid, None)
            self._held[pair.uid] = pair
            self._bytes += pair.nbytes
            self._enqueue([pair.uid])
        self.counts[verdict] += 1
        return verdict

    def set_aside_stale(self, learner_version: int) -> tuple[Uid, ...]:
        """Move queued tuples above the lag bound to ``stale``; returns their uids, sorted."""
        bound = learner_version - self._config.max_policy_lag
        if self._oldest >= bound:
            return ()
        found = sorted(uid for uid in self._queued if self._drawn_by(uid) < bound)
        self._queued.difference_update(found)
        self._oldest = min(map(self._drawn_by, self._queued), default=math.inf)
        self._stale.update(found)
        self.counts["stale_found"] += len(found)
        return tuple(found)

    def deliver(
        self, count: int, learner_version: int, *, stale: tuple[Uid, ...], exhausted: bool
    ) -> Lease:
        """Lease the lowest ``count`` queued uids (all, where there are fewer)."""
        uids = nsmallest(count, self._queued)
        pairs = [self._held[uid] for uid in uids]
        lags = tuple(lag for pair in pairs if (lag := _lag(pair, learner_version)) is not None)
        assert all(0 <= lag <= self._config.max_policy_lag for lag in lags), lags
        self.counts["leases"] += bool(uids)
        lease = Lease(
            id=f"{self._life}-{self.counts['leases']}" if uids else "",
            uids=tuple(uids),
            weight_versions=tuple(pair.weight_version for pair in pairs),
            lags=lags,
            stale=stale,
            exhausted=exhausted,
        )
        if uids:
            self._queued.difference_update(uids)
            deadline = self._clock() + self._config.lease_seconds
            self._leases[lease.id] = _LiveLease(set(uids), deadline)
        return lease

    def return_expired(self) -> bool:
        """Make the tuples of expired leases available again; returns whether there were any."""
        now = self._clock()
        over = [name for name, lease in self._leases.items() if lease.deadline <= now]
        for name in over:
            uids = self._leases.pop(name).uids
            self._expired[name] = set(uids)
            self._enqueue(uids)
        self.counts["expired"] += len(over)
        return bool(over)

    def seconds_to_expiry(self) -> float | None:
        """Seconds until the next lease expires; None: there is none."""
        ends = [lease.deadline - self._clock() for lease in self._leases.values()]
        return min(ends, default=None)

    def take_stale(self, limit: int) -> Uids:
        """Move up to ``limit`` stale uids, lowest first, to ``redrawing``; returns them."""
        uids = Uids(nsmallest(limit, self._stale))
        self._stale.difference_update(uids)
        self._redrawing.update((uid, self._forget(uid).nbytes) for uid in uids)
        return uids

    def ack(self, lease_id: str, step: int) -> Uids:
        """Consume the uids of a lease that no finished or other live lease accounts for."""
        if lease_id in self._leases:
            uids = self._leases.pop(lease_id).uids
        else:
            self.counts["late_acks"] += 1
            uids = self._expired.pop(lease_id, set()) - self._leased()
        consumed = Uids(sorted(uids))
        self._acked.update(consumed)
        self._leave(consumed)
        if consumed:
            self.counts["last_acked_step"] = step
        return consumed

    def release(self, lease_id: str) -> None:
        """Queue the uids of a lease again, and let no late ack of it count."""
        self._expired.pop(lease_id, None)
        if lease_id in self._leases:
            self._enqueue(self._leases.pop(lease_id).uids)

    def drop(self, uids: Iterable[Uid]) -> list[Uid]:
        """Finish uids without learning; returns those that were not finished before."""
        dropped = sorted({uid for uid in uids if not self._done(uid)})
        self._dropped.update(dropped)
        self._leave(dropped)
        return dropped

    def forget(self, uids: Iterable[Uid]) -> None:
        """Let unfinished uids be as if they had never been put."""
        self._leave([uid for uid in uids if not self._done(uid)])

    def statistics(self) -> dict[str, int]:
        """Return levels and totals; ``seen`` is the sum of the six states."""
        states = {
            "depth": len(self._queued),
            "leased": len(self._leased()),
            "stale": len(self._stale),
            "redrawing": len(self._redrawing),
            "acked": len(self._acked),
            "dropped": len(self._dropped),
        }
        return {
            **states,
            "seen": sum(states.values()),
            "held": len(self._held),
            "bytes": self._bytes,
            **{name: self.counts[name] for name in _TOTALS},
        }

    def _done(self, uid: Uid) -> bool:
        return uid in self._acked or uid in self._dropped

    def _enqueue(self, uids: Collection[Uid]) -> None:
        self._queued.update(uids)
        self._oldest = min((self._oldest, *map(self._drawn_by, uids)))

    def _drawn_by(self, uid: Uid) -> float:
        """Return the version of the weights that drew y_s; infinity: there is none to grow old."""
        version = self._held[uid].weight_version
        return math.inf if version is None else version

    def _leased(self) -> set[Uid]:
        return {uid for lease in self._leases.values() for uid in lease.uids}

    def _forget(self, uid: Uid) -> TupleHead:
        pair = self._held.pop(uid)
        self._bytes -= pair.nbytes
        return pair

    def _leave(self, uids: Collection[Uid]) -> None:
        """Take finished uids out of every state, so that the records of leases stay small."""
        leased = [lease.uids for lease in self._leases.values()]
        for state in (self._queued, self._stale, *leased, *self._expired.values()):
            state.difference_update(uids)
        for uid in uids:
            self._redrawing.pop(uid, None)
            if uid in self._held:
                self._forget(uid)
        self._leases = {name: lease for name, lease in self._leases.items() if lease.uids}
        self._expired = {name: uids for name, uids in self._expired.items() if uids}


_TOTALS = (
    "accepted",
    "duplicates",
    "late",
    "waited",
    "late_acks",
    "expired",
    "leases",
    "stale_found",
    "last_acked_step",
)


def _lag(pair: TupleHead, learner_version: int) -> int | None:
    return None if pair.weight_version is None else learner_version - pair.weight_version
