"""The way of weights to many machines.

To one or two they go straight, a whole copy to each. That would take the learner's line M times as
long for M machines. So from three on it sends each of them one shard, which goes on to all others:

    learner ─ shard 0 ─► machine 0 ─┐
            ─ shard 1 ─► machine 1 ─┼── every shard ──► every machine
            ─ shard 2 ─► machine 2 ─┘

One copy leaves the learner and about one leaves every machine, at the same time: two copies' time,
however many machines there are, up to ``MOST`` of them (a broadcast by scatter and all-gather: van
de Geijn and Watts 1997, SUMMA, section 3). Samplers of one machine share what arrives there.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from orchestration.roles import Role

FEWEST = 3
"""Machines; the straight way to fewer takes hardly longer, and needs no second."""
MOST = 32
"""Shards: every sampler is told of each, so their number times the samplers' is the driver's work.
Of more machines than that the others read from these, which then send several copies."""


def relays(samplers: Sequence[Role], learner: Role) -> list[Role]:
    """Return the samplers that hand shards on: one on each machine that the learner is not on.

    None where there are too few machines, or where a part has not said yet where it is.
    """
    first: dict[str, Role] = {}
    for each in (learner, *samplers):
        if each.process is None:
            return []
        first.setdefault(each.process.address, each)
    _, *found = first.values()
    return found[:MOST] if len(found) >= FEWEST else []


def relayed(shards: Sequence[Any], through: Sequence[Role]) -> list[Any]:
    """Return references to ``shards`` at the samplers that hand them on; with none, as they are.

    There may be fewer of those by now than shards were cut for, and more.
    """
    if not through:
        return list(shards)
    return [role.submit("relay", shard) for shard, role in zip(shards, cycle(through))]
