import asyncio
import pickle
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.packing import pack
from configs.replay import ReplayConfig
from configs.wire import Uid
from orchestration.replay import PutResult, ReplayQueue
from orchestration.uid_set import UidSet
from tests.orchestration.replay_builders import (
    BYTES,
    Clock,
    gold,
    ordinals,
    pair,
    pairs,
    uid,
    whole_pair,
)


def queue(clock: Clock | None = None, **config: Any) -> ReplayQueue:
    return ReplayQueue(ReplayConfig.model_validate(config), clock=clock or Clock())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 5))


async def settled(task: "asyncio.Task[Any]") -> bool:
    """Let everything that can go on go on; returns whether the task has ended."""
    for _ in range(20):
        await asyncio.sleep(0)
    return task.done()


def test_pairs_of_these_tests_have_the_size_that_their_bounds_assume() -> None:
    assert pair(0).nbytes == BYTES == 280


def test_a_lease_takes_the_lowest_uids_in_order_and_says_their_lags() -> None:
    async def scenario() -> None:
        replay = queue(max_policy_lag=3)
        await replay.put([pair(3, version=5), pair(1, version=4), gold(2), pair(0, version=3)])
        lease = await replay.lease(3, 6)
        assert ordinals(lease.uids) == [0, 1, 2]
        assert lease.uids == (uid(0), uid(1), uid(2))
        assert lease.weight_versions == (3, 4, None)
        assert lease.lags == (3, 2)
        assert lease.stale == ()
        assert not lease.exhausted

    run(scenario())


def test_a_lease_waits_for_a_full_batch() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put(pairs(0))
        waiting = asyncio.create_task(replay.lease(2, 0))
        assert not await settled(waiting)
        await replay.put(pairs(1))
        assert ordinals((await waiting).uids) == [0, 1]

    run(scenario())


def test_a_lease_that_times_out_is_empty_and_takes_nothing() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put(pairs(0))
        for timeout in (0.0, 0.01):
            lease = await replay.lease(2, 0, timeout)
            assert (lease.uids, lease.exhausted) == ((), False)
        assert (await replay.statistics())["depth"] == 1

    run(scenario())


def test_a_tuple_with_a_value_that_is_none_is_dropped_and_named():
    async def story() -> None:
        replay = ReplayQueue(ReplayConfig())
        sound, broken = whole_pair(0), whole_pair(1)
        values = np.array([0.0, np.nan, 0.0], np.float32)
        assert broken.student_response is not None
        answer = replace(broken.student_response, teacher_logprobs_T=values)
        broken = replace(broken, student_response=answer)
        assert await replay.put(pack([sound, broken]).parcel().heads) == PutResult(
            1, 0, 0, nonfinite=(uid(1),)
        )
        # Put again, by a retry, it is dropped already.
        assert await replay.put(pack([broken]).parcel().heads) == PutResult(0, 0, 1)
        statistics = await replay.statistics()
        assert (statistics["depth"], statistics["dropped_nonfinite"]) == (1, 1)

    asyncio.run(story())


def test_put_is_idempotent_in_every_state() -> None:
    async def scenario() -> None:
        replay = queue()
        assert await replay.put(pairs(0, 1, 0)) == PutResult(2, 1, 0)
        assert await replay.put(pairs(0)) == PutResult(0, 1, 0)
        lease = await replay.lease(1, 0)
        assert await replay.put(pairs(0)) == PutResult(0, 1, 0)
        await replay.ack(lease.id, 1)
        await replay.drop([uid(1)], "nonfinite")
        assert await replay.put(pairs(0, 1)) == PutResult(0, 0, 2)
        statistics = await replay.statistics()
        assert (statistics["duplicates"], statistics["late"]) == (3, 2)
        assert (statistics["acked"], statistics["dropped"], statistics["held"]) == (1, 1, 0)
        assert statistics["dropped_nonfinite"] == 1
        assert statistics["last_acked_step"] == 1

    run(scenario())


@pytest.mark.parametrize("bound", [{"max_tuples": 2}, {"max_bytes": 4 * BYTES + 1}])
def test_a_full_queue_makes_producers_wait_until_an_ack_and_admits_piece_by_piece(
    bound: dict[str, Any],
) -> None:
    async def scenario() -> None:
        replay = queue(**bound)
        capacity = bound.get("max_tuples") or 4
        putting = asyncio.create_task(replay.put(pairs(*range(2 * capacity))))
        assert not await settled(putting)
        assert (await replay.statistics())["held"] == capacity
        lease = await replay.lease(capacity, 0)
        assert not await settled(putting), "leased tuples count too"
        await replay.ack(lease.id, 1)
        assert await putting == PutResult(2 * capacity, 0, 0)
        lease = await replay.lease(capacity, 0)
        assert ordinals(lease.uids) == list(range(capacity, 2 * capacity))

    run(scenario())


def test_a_tuple_larger_than_the_byte_bound_is_admitted_alone() -> None:
    async def scenario() -> None:
        replay = queue(max_bytes=1024)
        await replay.put(pairs(0))
        putting = asyncio.create_task(replay.put([pair(1, tokens=1000)]))
        assert not await settled(putting)
        lease = await replay.lease(1, 0)
        await replay.ack(lease.id, 1)
        assert await putting == PutResult(1, 0, 0)

    run(scenario())


def test_a_batch_that_the_bounds_cannot_hold_is_an_error_and_no_deadlock() -> None:
    async def scenario() -> None:
        replay = queue(max_bytes=4 * BYTES)
        leasing = asyncio.create_task(replay.lease(5, 0))
        putting = asyncio.create_task(replay.put(pairs(*range(5))))
        with pytest.raises(ConfigError, match=r"full with 4 tuples.*needs 5.*max_bytes \(1120\)"):
            await leasing
        putting.cancel()

    run(scenario())


def test_a_cancelled_put_keeps_what_fitted_and_the_rest_can_be_put_again() -> None:
    async def scenario() -> None:
        replay = queue(max_tuples=2)
        putting = asyncio.create_task(replay.put(pairs(0, 1, 2)))
        assert not await settled(putting)
        putting.cancel()
        assert await settled(putting)
        statistics = await replay.statistics()
        assert statistics["waiting_puts"] == 0 and statistics["waited"] == 1
        lease = await replay.lease(2, 0)
        await replay.ack(lease.id, 1)
        assert await replay.put(pairs(0, 1, 2)) == PutResult(1, 0, 2)

    run(scenario())


def test_stale_tuples_are_redrawn_and_not_delivered() -> None:
    async def scenario() -> None:
        replay = queue(max_policy_lag=1)
        await replay.put([pair(0, version=0), pair(1, version=1), pair(2, version=2)])
        lease = await replay.lease(2, 2)
        assert ordinals(lease.uids) == [1, 2]
        assert lease.stale == (uid(0),)
        assert lease.lags == (1, 0)
        assert await replay.put(pairs(0)) == PutResult(0, 1, 0), "it has not been handed out yet"
        taken = await replay.take_stale(5)
        assert ordinals(taken) == [0]
        assert await replay.take_stale(5) == []
        assert (await replay.statistics())["redrawing"] == 1
        assert await replay.put(pairs(0, version=2)) == PutResult(1, 0, 0)
        lease = await replay.lease(1, 2)
        assert (lease.weight_versions, lease.lags) == ((2,), (0,))

    run(scenario())


def test_a_lease_that_finds_too_few_because_of_staleness_says_so_once_and_then_waits() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put([pair(0, version=0), pair(1, version=1)])
        lease = await replay.lease(2, 1)
        assert (lease.uids, lease.stale) == ((), (uid(0),))
        waiting = asyncio.create_task(replay.lease(2, 1))
        assert not await settled(waiting)
        await replay.take_stale(1)
        await replay.put(pairs(0, version=1))
        assert ordinals((await waiting).uids) == [0, 1]

    run(scenario())


@pytest.mark.parametrize("bound", [{"max_tuples": 4}, {"max_bytes": 4 * BYTES + 1}])
def test_what_is_redrawn_comes_back_to_a_full_queue(bound: dict[str, Any]) -> None:
    """Whoever redraws is who leases: new tuples in its place would stop everything for ever."""

    async def scenario() -> None:
        replay = queue(**bound)
        await replay.put([pair(0, version=0), *pairs(1, 2, 3, version=1)])
        new = asyncio.create_task(replay.put(pairs(4, 5, version=1)))
        leasing = asyncio.create_task(replay.lease(4, 1))
        assert (await leasing).stale == (uid(0),)
        await replay.take_stale(1)
        assert not await settled(new), "its room is kept"
        back = asyncio.create_task(replay.put([pair(0, version=1)]))
        assert await settled(back), "it waits for the new ones"
        lease = await replay.lease(4, 1)
        assert ordinals(lease.uids) == [0, 1, 2, 3]
        await replay.ack(lease.id, 2)
        assert await new == PutResult(2, 0, 0)

    run(scenario())


def test_what_is_redrawn_longer_comes_back_too_and_nothing_new_beside_it() -> None:
    async def scenario() -> None:
        replay = queue(max_bytes=4 * BYTES + 1)
        await replay.put([pair(0, version=0), *pairs(1, 2, 3, version=1)])
        await replay.lease(4, 1)
        await replay.take_stale(1)
        longer = pair(0, version=1, tokens=30)
        assert await settled(asyncio.create_task(replay.put([longer])))
        assert (await replay.statistics())["bytes"] == 3 * BYTES + longer.nbytes > 4 * BYTES + 1
        new = asyncio.create_task(replay.put(pairs(4, version=1)))
        assert not await settled(new)
        await replay.ack((await replay.lease(4, 1)).id, 2)
        assert await new == PutResult(1, 0, 0)

    run(scenario())


def test_a_lease_and_uids_arrive_as_they_were() -> None:
    async def scenario() -> None:
        replay = queue(max_policy_lag=3)
        await replay.put([pair(3, version=5), gold(2)])
        lease = await replay.lease(2, 6)
        assert pickle.loads(pickle.dumps(lease)) == lease
        consumed = await replay.ack(lease.id, 7)
        assert pickle.loads(pickle.dumps(consumed)) == consumed == [uid(2), uid(3)]
        assert len(pickle.dumps(consumed)) < 100, "plain numbers"

    run(scenario())


def test_what_is_forgotten_is_put_anew_whatever_became_of_it() -> None:
    async def scenario() -> None:
        replay = queue(max_policy_lag=1)
        await replay.put([pair(0), pair(1), pair(2, version=2), pair(3, version=2)])
        done = await replay.lease(1, 1)
        await replay.ack(done.id, 1)
        leased = await replay.lease(1, 1)
        await replay.lease(2, 3)
        await replay.forget([uid(0), uid(1), uid(2)])
        assert await replay.ack(leased.id, 2) == [], "its tuple is to be learned from later"
        again = [pair(0, version=3), pair(1, version=3), pair(2, version=3)]
        assert await replay.put(again) == PutResult(2, 0, 1), "what is learned from stays so"
        assert (await replay.statistics())["dropped"] == 0

    run(scenario())


def test_tuples_without_student_response_never_grow_stale() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put([gold(0)])
        lease = await replay.lease(1, 1_000)
        assert lease.uids == (uid(0),)

    run(scenario())


def test_a_tuple_from_the_future_is_a_programmer_error() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put([pair(0, version=2)])
        with pytest.raises(AssertionError):
            await replay.lease(1, 1)

    run(scenario())


def test_an_expired_lease_is_delivered_again_and_a_waiting_lease_gets_it() -> None:
    async def scenario() -> None:
        replay = ReplayQueue(ReplayConfig.model_validate({"lease_seconds": 0.02}))
        await replay.put(pairs(0))
        first = await replay.lease(1, 0)
        second = await replay.lease(1, 0)
        assert ordinals(second.uids) == [0]
        assert second.id != first.id
        assert (await replay.statistics())["expired"] == 1

    run(scenario())


def test_a_late_ack_counts_for_what_is_queued_again() -> None:
    async def scenario() -> None:
        clock = Clock()
        replay = queue(clock, lease_seconds=10)
        await replay.put(pairs(0, 1))
        lease = await replay.lease(2, 0)
        clock.now = 10.0
        assert (await replay.statistics())["depth"] == 2
        assert await replay.ack(lease.id, 1) == [uid(0), uid(1)]
        assert await replay.ack(lease.id, 1) == []
        statistics = await replay.statistics()
        assert (statistics["acked"], statistics["depth"], statistics["late_acks"]) == (2, 0, 2)

    run(scenario())


def test_a_late_ack_does_not_count_for_what_another_lease_holds() -> None:
    async def scenario() -> None:
        clock = Clock()
        replay = queue(clock, lease_seconds=10)
        await replay.put(pairs(0, 1))
        first = await replay.lease(2, 0)
        clock.now = 10.0
        second = await replay.lease(1, 0)
        assert await replay.ack(first.id, 1) == [uid(1)]
        assert await replay.ack(second.id, 2) == [uid(0)]

    run(scenario())


def test_a_late_ack_ends_a_redraw() -> None:
    async def scenario() -> None:
        clock = Clock()
        replay = queue(clock, lease_seconds=10)
        await replay.put(pairs(0))
        lease = await replay.lease(1, 0)
        clock.now = 10.0
        assert (await replay.lease(1, 1)).stale == (uid(0),)
        await replay.take_stale(1)
        assert await replay.ack(lease.id, 1) == [uid(0)]
        assert await replay.put(pairs(0, version=1)) == PutResult(0, 0, 1)

    run(scenario())


def test_a_released_lease_is_delivered_again_and_its_ack_consumes_nothing() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put(pairs(0))
        first = await replay.lease(1, 0)
        await replay.release(first.id)
        await replay.release(first.id)
        second = await replay.lease(1, 0)
        assert await replay.ack(first.id, 1) == []
        assert await replay.ack(second.id, 1) == [uid(0)]
        assert await replay.ack(second.id, 1) == []

    run(scenario())


def test_an_expired_lease_can_still_be_released_and_then_its_ack_consumes_nothing() -> None:
    async def scenario() -> None:
        clock = Clock()
        replay = queue(clock, lease_seconds=10)
        await replay.put(pairs(0))
        lease = await replay.lease(1, 0)
        clock.now = 10.0
        assert (await replay.statistics())["expired"] == 1
        await replay.release(lease.id)
        assert await replay.ack(lease.id, 1) == []
        assert (await replay.statistics())["depth"] == 1

    run(scenario())


def test_a_lease_of_another_life_of_the_queue_acks_nothing() -> None:
    async def scenario() -> None:
        before, after = queue(), queue()
        for replay in (before, after):
            await replay.put(pairs(0))
        old = await before.lease(1, 0)
        await after.lease(1, 0)
        assert await after.ack(old.id, 1) == []

    run(scenario())


def test_dropped_uids_leave_their_lease_and_never_come_back() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put(pairs(0, 1, 2))
        lease = await replay.lease(2, 0)
        assert await replay.drop([uid(1), uid(2), uid(7)], "poison") == [uid(1), uid(2), uid(7)]
        assert await replay.drop([uid(1)], "poison") == []
        assert await replay.ack(lease.id, 1) == [uid(0)]
        assert await replay.drop([uid(0)], "nonfinite") == []
        assert await replay.put(pairs(7)) == PutResult(0, 0, 1)
        assert (await replay.statistics())["seen"] == 4

    run(scenario())


def test_a_closed_queue_gives_its_rest_and_then_says_that_it_is_exhausted() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put(pairs(0))
        waiting = asyncio.create_task(replay.lease(2, 0))
        assert not await settled(waiting)
        await replay.close()
        last = await waiting
        assert (ordinals(last.uids), last.exhausted) == ([0], False)
        waiting = asyncio.create_task(replay.lease(2, 0))
        assert not await settled(waiting), "the leased rest might come back"
        await replay.ack(last.id, 1)
        assert (await waiting).exhausted

    run(scenario())


def test_a_closed_queue_waits_for_redraws_and_refuses_new_uids() -> None:
    async def scenario() -> None:
        replay = queue()
        await replay.put([pair(0, version=0), pair(1, version=1)])
        await replay.lease(2, 1, 0.0)
        await replay.take_stale(1)
        await replay.close()
        waiting = asyncio.create_task(replay.lease(2, 1))
        assert not await settled(waiting)
        with pytest.raises(AssertionError, match="after close"):
            await replay.put(pairs(9))
        assert await replay.put(pairs(0, version=1)) == PutResult(1, 0, 0)
        assert ordinals((await waiting).uids) == [0, 1]

    run(scenario())


def test_a_set_of_uids_finished_in_any_order_collapses_to_one_run() -> None:
    uids = UidSet()
    order = np.random.default_rng(0).permutation(1000)
    assert all(uids.add(Uid(epoch, int(o), s)) for o in order for epoch in (0, 1) for s in (0, 1))
    assert not uids.add(Uid(1, 500, 1))
    assert (len(uids), uids.runs) == (4000, 4)
    assert Uid(0, 999, 0) in uids
    assert Uid(0, 1000, 0) not in uids
    assert Uid(2, 0, 0) not in uids
