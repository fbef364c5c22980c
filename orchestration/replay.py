"""The replay queue: bounded, versioned, leased. Plain asyncio; an actor only at the edge.

`orchestration/replay_state.py` says what is held and what becomes of every uid; this file
says who waits for what. Every method is a coroutine and changes the state without awaiting
in between, so calls never see each other half done.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from configs.errors import ConfigError
from configs.faults import failpoint
from configs.replay import DropReason, ReplayConfig
from configs.wire import TupleHead, Uid, Uids
from orchestration.replay_state import Lease, ReplayState, Verdict


class PutResult(NamedTuple):
    """What became of the tuples of one ``put``."""

    accepted: int
    duplicates: int
    """Ignored: the uid is in the queue, or leased."""
    late: int
    """Ignored: the uid is acked or dropped."""
    nonfinite: tuple[Uid, ...] = ()
    """Dropped here: a log-probability was NaN or infinite, and would poison a whole step."""


class ReplayQueue:
    """Holds tuples between sampling and learning; delivers each for one effect.

    It knows them by their heads. What is in them stays where it was made, and ``lease`` names what
    is to be fetched from there (``orchestration/payloads.py``). Bounds: ``max_tuples`` and
    ``max_bytes`` count the tuples held, leased ones included, and those that are being redrawn,
    whose room is kept for them. A put is admitted tuple by tuple as room comes free, so a batch may
    be larger than the bounds. Above ``max_bytes`` come only a single tuple that is larger, which is
    admitted when the queue is empty, and what redrawn tuples have grown by. Delivery: lowest uids
    first.
    """

    def __init__(
        self, config: ReplayConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._state = ReplayState(config, clock)
        self._changed = asyncio.Condition()
        self._waiting: dict[object, TupleHead] = {}  # which producers wait to put
        self._closed = False

    async def put(self, tuples: Sequence[TupleHead]) -> PutResult:
        """Add tuples, and wait while the queue is full.

        Idempotent per uid. A uid that ``take_stale`` handed out is accepted once more, after
        ``close`` too. A cancelled put has added what fitted; the rest may be put again. Tuples
        that hold a NaN or infinite log-probability are dropped, and named in the answer.
        """
        failpoint("queue.put")
        nonfinite: list[Uid] = []
        if poisoned := [pair.uid for pair in tuples if not pair.finite]:
            nonfinite = await self.drop(poisoned, "nonfinite")
            tuples = [pair for pair in tuples if pair.uid not in nonfinite]
        verdicts: list[Verdict] = []
        async with self._changed:
            if self._closed:
                new = [pair.uid for pair in tuples if not self._state.knows(pair.uid)]
                assert not new, f"put of {len(new)} new tuples after close"
            for pair in tuples:
                if not self._decided(pair):
                    await self._wait_for_room(pair)
                verdicts.append(self._state.admit(pair))
            self._changed.notify_all()  # who waits for room has told of the tuples before it
        counts = map(verdicts.count, ("accepted", "duplicates", "late"))
        return PutResult(*counts, nonfinite=tuple(nonfinite))

    async def lease(self, count: int, learner_version: int, timeout: float | None = None) -> Lease:
        """Take the ``count`` lowest uids whose lag is within ``max_policy_lag``.

        Waits until so many are queued. Answers earlier with fewer when the queue is closed
        and no more will come; with an empty lease after ``timeout`` seconds (None: never),
        when the queue is exhausted, and when this call found stale tuples that leave too few:
        a caller without a redraw loop of its own can then redraw them. Raises ConfigError when
        the bounds cannot hold ``count`` tuples, which would otherwise wait for ever.
        """
        assert count >= 1, count
        failpoint("queue.lease")
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        async with self._changed:
            while True:
                self._return_expired()
                stale = self._state.set_aside_stale(learner_version)
                over = self._exhausted()
                late = deadline is not None and loop.time() >= deadline
                ready = self._ready(count)
                if ready or stale or over or late:
                    self._changed.notify_all()
                    return self._state.deliver(
                        count if ready else 0, learner_version, stale=stale, exhausted=over
                    )
                self._refuse_impossible(count)
                await self._wait_for_change(deadline)

    async def take_stale(self, limit: int) -> Uids:
        """Hand out up to ``limit`` stale uids, lowest first, possibly none.

        Only their student response is too old: the teacher's response and its log-probabilities
        stay valid. The queue waits for a new ``put`` of the uid.
        """
        async with self._changed:
            self._changed.notify_all()
            return self._state.take_stale(limit)

    async def ack(self, lease_id: str, step: int) -> Uids:
        """Step ``step`` has learned from a lease; returns the uids that this call consumed.

        Idempotent. Each uid is consumed by one ack at most: a late ack of an expired lease
        still counts for the uids that are in no other live lease (its step *was* made, so
        delivering them again would apply them twice), and not for those that are: the other
        lease's own ack will count. Acks of a released or unknown lease consume nothing.
        """
        failpoint("queue.ack")
        async with self._changed:
            self._changed.notify_all()
            return self._state.ack(lease_id, step)

    async def release(self, lease_id: str) -> None:
        """Give a lease back unlearned; its tuples are delivered again. Idempotent."""
        async with self._changed:
            self._changed.notify_all()
            self._state.release(lease_id)

    async def drop(self, uids: Iterable[Uid], reason: DropReason) -> list[Uid]:
        """Give uids up, whatever their state, even if they were never put (poison).

        Returns those that this call dropped: acked and already dropped ones are left alone.
        ``reason`` is the ledger's; the queue counts by it.
        """
        async with self._changed:
            self._changed.notify_all()
            dropped = self._state.drop(uids)
            self._state.counts[f"dropped_{reason}"] += len(dropped)
            return dropped

    async def forget(self, uids: Iterable[Uid]) -> None:
        """Let unfinished uids be as if they had never been put: their contents are lost, and they
        are made again.
        """
        async with self._changed:
            self._changed.notify_all()
            self._state.forget(uids)

    async def close(self) -> None:
        """Announce that no new uid will be put; what is held can still be leased."""
        async with self._changed:
            self._changed.notify_all()
            self._closed = True

    async def statistics(self) -> dict[str, int]:
        """Return levels and totals.

        States: ``depth`` (queued), ``leased``, ``stale``, ``redrawing``, ``acked``,
        ``dropped``; ``seen`` is their sum. Levels: ``held``, ``bytes``, ``waiting_puts``.
        Totals: ``accepted``, ``duplicates``, ``late``, ``waited`` (tuples that found it full),
        ``late_acks``, ``expired`` and ``leases`` (leases), ``stale_found``,
        ``dropped_<reason>``; ``last_acked_step``.
        """
        async with self._changed:
            self._return_expired()
            reasons = {k: n for k, n in self._state.counts.items() if k.startswith("dropped_")}
            return {
                **self._state.statistics(),
                **reasons,
                "waiting_puts": len(self._waiting),
            }

    def _decided(self, pair: TupleHead) -> bool:
        """Whether a tuple need not wait: there is room for it, or it needs none."""
        return self._state.fits(pair) or self._state.verdict(pair.uid) != "accepted"

    async def _wait_for_room(self, pair: TupleHead) -> None:
        place = object()
        self._waiting[place] = pair
        self._state.counts["waited"] += 1
        self._changed.notify_all()  # a lease that this makes hopeless must find out
        try:
            await self._changed.wait_for(lambda: self._decided(pair))
        finally:
            del self._waiting[place]

    def _ready(self, count: int) -> bool:
        if self._state.queued >= count:
            return True
        more_to_come = not self._closed or self._state.coming_back or self._waiting
        return self._state.queued > 0 and not more_to_come

    def _exhausted(self) -> bool:
        return self._closed and self._state.empty and not self._waiting

    def _return_expired(self) -> None:
        if self._state.return_expired():
            self._changed.notify_all()

    def _refuse_impossible(self, count: int) -> None:
        """Raise when producers wait for room that only this lease could make."""
        full = self._waiting and not any(map(self._state.fits, self._waiting.values()))
        if full and self._state.only_queued:
            raise ConfigError(
                f"the replay queue is full with {self._state.queued} tuples and a batch needs "
                f"{count}; raise replay.max_bytes ({self._config.max_bytes}) or "
                f"replay.max_tuples ({self._config.max_tuples})"
            )

    async def _wait_for_change(self, deadline: float | None) -> None:
        """Wait for a notification, the deadline (of the loop's clock) or the next expiry."""
        ends = [] if deadline is None else [deadline]
        expiry = self._state.seconds_to_expiry()
        if expiry is not None:
            ends.append(asyncio.get_running_loop().time() + expiry)
        try:
            async with asyncio.timeout_at(min(ends, default=None)):
                await self._changed.wait()
        except TimeoutError:
            pass  # the caller looks at the state again either way
