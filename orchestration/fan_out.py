"""The way of weights to many machines.

To one or two they go straight, a whole copy to each. That would take the learner's line M times as
long for M machines. So from three on it sends each of them one shard, which goes on to all others:

    learner ─ shard 0 ─► machine 0 ─┐
            ─ shard 1 ─► machine 1 ─┼── every shard ──► every machine
            ─ shard 2 ─► machine 2 ─┘

One copy leaves the learner and about one leaves every machine, at the same time: two copies' time
at best, however many machines there are, up to ``MOST`` of them (a broadcast by scatter and
all-gather: van de Geijn and Watts 1997, SUMMA, section 3). Samplers of one machine share what
arrives there.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

from orchestration.roles import Role

FEWEST = 3
"""Machines; the straight way to fewer takes hardly longer, and needs no second."""
MOST = 32
"""Shards: every sampler is told of each, so their number times the samplers' is the driver's work.
Of more machines than that the others read from these, which then send several copies."""


def relays(samplers: Sequence[Role], learner: Role) -> list[Role]:
    """Return the samplers that hand shards on: one on each machine that the learner is not on.

    None where those are too few, or where the learner has not said yet where it is; a sampler that
    has not hands nothing on.
    """
    if learner.process is None:
        return []
    first: dict[str, Role] = {}
    for each in (learner, *samplers):
        if each.process is not None:
            first.setdefault(each.process.address, each)
    _, *found = first.values()
    return found[:MOST] if len(found) >= FEWEST else []


class Ways(NamedTuple):
    """Where each sampler finds the shards."""

    published: Sequence[Any]
    """References to what the learner laid out."""
    relayed: Sequence[Any] = ()
    """References to the same on the machines that hand them on; none: all go straight."""
    home: str = ""
    """The learner's machine, where they lie already."""

    def to(self, sampler: Role) -> Sequence[Any]:
        """Return references to all shards, the nearest there are."""
        at_home = sampler.process is not None and sampler.process.address == self.home
        return self.published if at_home or not self.relayed else self.relayed


def ways(shards: Sequence[Any], samplers: Sequence[Role], learner: Role) -> Ways:
    """Have ``shards`` handed on, where that is shorter; there may be fewer machines by now than
    they were cut for, and more.
    """
    through = relays(samplers, learner)
    if not through or learner.process is None:
        return Ways(shards)
    relayed = [role.submit("relay", shard) for shard, role in zip(shards, cycle(through))]
    return Ways(shards, relayed, learner.process.address)
