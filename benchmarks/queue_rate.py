"""How many tuples a second pass the replay queue, in an actor of a real Ray, in batches of 64.

    python -m benchmarks.queue_rate [--runs 5]

        Maker ──references──► ReplayQueue: put ─► lease ──reference──► Learner: unpacks
                                       └──────────◄── ack ◄── driver

Prompts of 64 tokens, two responses of 64, with log-probabilities. The maker's actor holds its
packed batches before the clock starts, as a teacher does that has judged; the clock runs until
every tuple is put, leased, fetched and unpacked by another process, and acked.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.figures import command_line, report
from benchmarks.made_tuples import BATCH, batch_of
from configs.cluster import ClusterConfig
from configs.packing import unpack
from configs.replay import ReplayConfig
from configs.wire import PackedTuple
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

    def judge(self, number: int) -> list[PackedTuple]:
        """Return the ``number``-th batch."""
        return batch_of(number)


class Learner:
    """Takes batches in as a learner's rank does."""

    def forward_backward(self, packed: list[PackedTuple]) -> int:
        """Open every tuple."""
        return len(unpack(packed))


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
            rate = loop.run(_rate(maker, queue, learner, first=run * BATCHES))
            if run:
                yield rate


async def _build(*roles: Role) -> None:
    await asyncio.gather(*(role.call("build") for role in roles))


async def _rate(maker: Role, queue: Role, learner: Role, *, first: int) -> float:
    import ray

    held = [maker.submit("judge", number) for number in range(first, first + BATCHES)]
    ray.wait(held, num_returns=BATCHES)
    began = time.perf_counter()
    puts, leases = iter(held), iter(range(BATCHES))
    producers = [_produce(queue, puts) for _ in range(AT_A_TIME)]
    consumers = [_consume(queue, learner, leases) for _ in range(AT_A_TIME)]
    await asyncio.gather(*producers, *consumers)
    return BATCHES * BATCH / (time.perf_counter() - began)


async def _produce(queue: Role, batches: Iterator[Any]) -> None:
    for batch in batches:
        put = await queue.call("put", batch)
        assert put.accepted == BATCH, put


async def _consume(queue: Role, learner: Role, leases: Iterator[int]) -> None:
    for _ in leases:
        lease_ref, batch = queue.submit("lease", BATCH, 0, 60.0, returns=2)
        lease = await queue.fetch(lease_ref)
        assert await learner.call("forward_backward", batch) == len(lease.uids) == BATCH
        assert len(await queue.call("ack", lease.id, 0)) == BATCH


if __name__ == "__main__":
    sys.exit(main())
