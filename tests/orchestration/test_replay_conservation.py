"""Nothing is lost and nothing counted twice, whatever the order of events (Hypothesis)."""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from configs.replay import ReplayConfig
from configs.wire import TupleHead, Uid
from orchestration.replay import Lease, ReplayQueue
from tests.orchestration.replay_builders import Clock, pair

MAX_LAG, MAX_TUPLES, MAX_BYTES, LEASE_SECONDS = 2, 7, 2000, 10.0
LARGE = 100  # response tokens: two such tuples do not fit into MAX_BYTES, three small ones do


class ReplayMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        config = ReplayConfig(
            max_policy_lag=MAX_LAG,
            max_tuples=MAX_TUPLES,
            max_bytes=MAX_BYTES,
            lease_seconds=LEASE_SECONDS,
        )
        self.queue = ReplayQueue(config, clock=self.clock)
        self.version = 0
        self.offered: set[Uid] = set()
        self.seen: set[Uid] = set()  # surely put; a waiting or cancelled put may be half done
        self.putting: dict[asyncio.Task[Any], set[Uid]] = {}
        self.leases: dict[str, Lease] = {}  # every lease ever given, so that acks can be late
        self.live: dict[str, float] = {}  # lease → deadline, by the model's own account
        self.released: set[str] = set()
        self.stale: set[Uid] = set()
        self.taken: set[Uid] = set()
        self.acked: list[Uid] = []
        self.dropped: list[Uid] = []

    def wait(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def settle(self) -> None:
        self.wait(_let_others_run())
        for task in [task for task in self.putting if task.done()]:
            task.result()
            self.seen |= self.putting.pop(task)

    def start_put(self, tuples: list[TupleHead]) -> None:
        uids = {one.uid for one in tuples}
        self.offered |= uids
        self.putting[self.loop.create_task(self.queue.put(tuples))] = uids
        self.settle()

    def finished(self) -> set[Uid]:
        return {*self.acked, *self.dropped}

    def live_uids(self) -> list[Uid]:
        over = self.finished()
        return [u for name in self.live for u in self.leases[name].uids if u not in over]

    def expire(self) -> None:
        self.live = {name: end for name, end in self.live.items() if end > self.clock.now}

    @precondition(lambda self: len(self.putting) < 3)
    @rule(
        ordinals=st.lists(st.integers(0, 12), min_size=1, max_size=5),
        age=st.integers(0, 4),
        tokens=st.sampled_from([3, 3, 3, LARGE]),
    )
    def put_anything_again_and_out_of_order(
        self, ordinals: list[int], age: int, tokens: int
    ) -> None:
        version = max(0, self.version - age)
        self.start_put([pair(ordinal, version, tokens) for ordinal in ordinals])

    @precondition(lambda self: self.putting)
    @rule(index=st.integers(0, 2))
    def cancel_a_put(self, index: int) -> None:
        task = list(self.putting)[index % len(self.putting)]
        del self.putting[task]
        task.cancel()
        self.settle()

    @rule(count=st.integers(1, 4))
    def lease(self, count: int) -> None:
        self.expire()
        before = set(self.live_uids())
        lease = self.wait(self.queue.lease(count, self.version, 0.0))
        assert list(lease.uids) == sorted(set(lease.uids))
        assert len(lease.uids) in (0, count)
        assert not before & set(lease.uids), "a uid is in two live leases"
        assert not self.finished() & set(lease.uids), "a finished uid is delivered"
        for version, lag in zip(lease.weight_versions, lease.lags, strict=True):
            assert version is not None
            assert lag == self.version - version
            assert 0 <= lag <= MAX_LAG
        self.stale.update(lease.stale)
        if lease.uids:
            assert lease.id not in self.leases
            self.leases[lease.id] = lease
            self.live[lease.id] = self.clock.now + LEASE_SECONDS
        self.settle()

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def ack_any_lease_ever_given(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.leases)))
        was_live = name in self.live
        if was_live:
            del self.live[name]
        owed = set(self.leases[name].uids) - self.finished()
        consumed = self.wait(self.queue.ack(name, self.version + 1))
        assert len(set(consumed)) == len(consumed)
        assert set(consumed) <= owed
        assert not set(consumed) & set(self.live_uids())
        assert not (consumed and name in self.released)
        if was_live:
            assert set(consumed) == owed
            self.version += 1
        self.acked += consumed
        self.settle()

    @precondition(lambda self: self.live)
    @rule(count=st.integers(1, 4))
    def let_a_lease_expire_and_lease_again(self, count: int) -> None:
        self.clock.now = min(self.live.values())
        self.lease(count)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release_any_lease_ever_given(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.leases)))
        self.live.pop(name, None)
        self.released.add(name)
        self.wait(self.queue.release(name))
        self.settle()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def lose_what_is_in_a_live_lease(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.live)))
        lost = set(self.leases[name].uids) - self.finished()
        self.wait(self.queue.forget(lost))
        del self.live[name]
        self.released.add(name)
        for known in (self.seen, *self.putting.values()):
            known.difference_update(lost)
        self.settle()

    @rule(seconds=st.sampled_from([LEASE_SECONDS / 3, LEASE_SECONDS]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.now += seconds
        self.expire()

    @rule()
    def let_the_learner_run_ahead(self) -> None:
        self.version += 1

    @rule(limit=st.integers(1, 4))
    def take_stale(self, limit: int) -> None:
        taken = self.wait(self.queue.take_stale(limit))
        assert len(taken) <= limit
        for uid in taken:
            assert uid not in self.finished() | set(self.live_uids())
            assert uid in self.stale, "no lease has told of it"
        self.taken.update(taken)
        self.settle()

    @precondition(lambda self: self.taken and len(self.putting) < 3)
    @rule(data=st.data())
    def redraw(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.taken)))
        self.start_put([pair(uid.ordinal, self.version)])

    @rule(ordinals=st.lists(st.integers(0, 12), min_size=1, max_size=2))
    def drop_whatever_its_state(self, ordinals: list[int]) -> None:
        uids = [Uid(0, ordinal, 0) for ordinal in ordinals]
        dropped = self.wait(self.queue.drop(uids, "nonfinite"))
        assert set(dropped) == set(uids) - self.finished()
        self.offered.update(dropped)
        self.seen.update(dropped)
        self.dropped += dropped
        self.settle()

    @invariant()
    def the_books_balance(self) -> None:
        self.expire()
        self.wait(self.queue.statistics())  # notices expired leases
        self.settle()
        statistics = self.wait(self.queue.statistics())
        states = ("depth", "leased", "stale", "redrawing", "acked", "dropped")
        assert statistics["seen"] == sum(statistics[state] for state in states)
        assert statistics["acked"] == len(self.acked) == len(set(self.acked))
        assert statistics["dropped"] == len(self.dropped) == len(set(self.dropped))
        assert not set(self.acked) & set(self.dropped)
        assert statistics["leased"] == len(self.live_uids()) == len(set(self.live_uids()))
        held = statistics["depth"] + statistics["leased"] + statistics["stale"]
        assert statistics["held"] == held <= MAX_TUPLES
        # What comes back redrawn has its place, however much longer its new response is.
        grown = len(self.taken - self.finished()) * (pair(0, 0, LARGE).nbytes - pair(0).nbytes)
        assert statistics["bytes"] <= MAX_BYTES + grown
        assert len(self.seen) <= statistics["seen"] <= len(self.offered)
        assert statistics["waiting_puts"] == len(self.putting)

    def teardown(self) -> None:
        """Learn from everything that is left: every uid ever offered must be accounted for."""
        for task in self.putting:
            task.cancel()
        self.putting.clear()
        self.wait(_let_others_run())
        for ordinal in sorted(uid.ordinal for uid in self.offered):
            self.start_put([pair(ordinal, self.version)])
            self.learn_from_what_is_there()
        self.wait(self.queue.close())
        self.clock.now += LEASE_SECONDS
        assert any(self.learn_from_what_is_there() for _ in range(100)), "never exhausted"
        assert self.offered == self.finished()
        assert len(self.offered) == len(self.acked) + len(self.dropped)
        self.loop.close()

    def learn_from_what_is_there(self) -> bool:
        lease = self.wait(self.queue.lease(1, self.version, 0.0))
        self.acked += self.wait(self.queue.ack(lease.id, self.version)) if lease.uids else []
        for one in self.wait(self.queue.take_stale(100)):
            self.start_put([pair(one.ordinal, self.version)])
        self.settle()
        return lease.exhausted


async def _let_others_run() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


ReplayMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True
)
TestReplayConservation = ReplayMachine.TestCase
