"""How many tuples a second pass the replay queue, in an actor of a real Ray, in batches of 64.

    python -m benchmarks.queue_rate [--runs 5]

        Maker ──heads──► ReplayQueue: put ─► lease ─► driver ─► ack
          └────────────────── contents ──────────────────► Learner: unpacks   (printed beside)

Prompts of 64 tokens, two responses of 64, with log-probabilities. The maker's actor holds its
packed batches before the clock starts, as a teacher does that has judged. The clock runs until
every tuple is put, leased and acked. Printed beside is the rate where a learner's process fetches
and unpacks every batch between its lease and its ack, which takes a core of its own.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.figures import command_line, report
from benchmarks.made_tuples import BATCH, batch_of, uids_of
from configs.cluster import ClusterConfig
from configs.packing import unpack
from configs.replay import ReplayConfig
from configs.wire import PackedTuple, Parcel
from orchestration.payloads import Payloads
from orchestration.ray_auth import settle_authentication
from orchestration.replay import ReplayQueue
from orchestration.roles import Role

BATCHES = 640
"""Of a run: 40 960 tuples."""
AT_A_TIME = 4
"""Calls of one kind under way: producers that put, and learners' leases."""
_QUEUE = ReplayConfig(max_tuples=2 * AT_A_TIME * BATCH)


class Maker:
    """Makes batches, and keeps them where it runs."""

    def judge(self, number: int) -> Parcel:
        """Return the ``number``-th batch."""
        return batch_of(number).parcel()


class Learner:
    """Takes batches in as a learner's rank does."""

    def forward_backward(self, places: list[tuple[int, int]], *batches: list[PackedTuple]) -> int:
        """Open every tuple."""
        return len(unpack(batches[which][place] for which, place in places))


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("queue_rate", 5, "tuples/s through put, lease and ack, 64 a call, over Ray")
    config = ClusterConfig(address="local")
    settle_authentication(config)  # before Ray is imported
    return report("queue", measure(config, runs))


def measure(config: ClusterConfig, runs: int) -> Iterator[float]:
    """Yield the rate of every run; a first one, in which Ray starts its threads, is not told."""
    from orchestration.launcher import RayLauncher

    with RayLauncher(config, f"queue-rate-{os.getpid()}") as launcher, asyncio.Runner() as loop:
        maker, learner = launcher.role("maker", Maker), launcher.role("learner", Learner)
        queue = launcher.role("queue", partial(ReplayQueue, _QUEUE), asynchronous=True)
        loop.run(_build(maker, queue, learner))
        for run in range(runs + 1):
            first = 2 * run * BATCHES
            rate = loop.run(_rate(maker, queue, None, first=first))
            beside = loop.run(_rate(maker, queue, learner, first=first + BATCHES))
            if run:
                print(f"with a learner that fetches and unpacks: {beside:,.0f} tuples/s")
                yield rate


async def _build(*roles: Role) -> None:
    await asyncio.gather(*(role.call("build") for role in roles))


async def _rate(maker: Role, queue: Role, learner: Role | None, *, first: int) -> float:
    import ray

    numbers = range(first, first + BATCHES)
    held = [maker.submit("judge", number, returns=2) for number in numbers]
    ray.wait([batch for _, batch in held], num_returns=BATCHES)
    payloads = Payloads()
    began = time.perf_counter()
    puts, leases = iter(zip(numbers, held, strict=True)), iter(range(BATCHES))
    producers = [_produce(queue, payloads, puts) for _ in range(AT_A_TIME)]
    consumers = [_consume(queue, payloads, learner, leases) for _ in range(AT_A_TIME)]
    await asyncio.gather(*producers, *consumers)
    return BATCHES * BATCH / (time.perf_counter() - began)


async def _produce(queue: Role, payloads: Payloads, made: Iterator[Any]) -> None:
    for number, (heads, batch) in made:
        payloads.add(uids_of(number), batch)
        put = await queue.call("put", heads)
        assert put.accepted == BATCH, put


async def _consume(
    queue: Role, payloads: Payloads, learner: Role | None, leases: Iterator[int]
) -> None:
    for _ in leases:
        lease = await queue.call("lease", BATCH, 0, 60.0)
        places, batches = payloads.pick(lease.uids)
        assert len(places) == BATCH
        if learner:
            assert await learner.call("forward_backward", places, *batches) == BATCH
        consumed = await queue.call("ack", lease.id, 0)
        assert len(consumed) == BATCH
        payloads.forget(consumed)


if __name__ == "__main__":
    sys.exit(main())
