"""Whether machines can ever hold a run's actors: in sum, and each of them on one machine.

Totals alone say yes to a sampler of 8 GPUs on two machines of 4, which Ray would never place.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from configs.cluster import ClusterConfig, RoleResources
from orchestration.role_counts import reserved

Amounts = Mapping[str, float]
"""Of each resource, under Ray's name for it."""
Node = tuple[str, Amounts]
"""A machine's name, for messages, and what it has when nobody is on it."""
_ROUNDING = 1e-9


class _Short(NamedTuple):
    """A resource of which a machine has too little."""

    name: str
    asked: float
    there: float

    def __str__(self) -> str:
        return f"{self.name}: {self.asked:g} asked, {self.there:g} there"


def bundle(resources: RoleResources) -> dict[str, float]:
    """Return what one actor reserves, without what it does not."""
    amounts = {"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}
    return {name: amount for name, amount in amounts.items() if amount}


def no_room(config: ClusterConfig, counts: Mapping[str, int], nodes: Sequence[Node]) -> str | None:
    """Say why ``nodes``, empty, cannot hold so many actors of each role; None: no reason is known.

    Whether roles crowd each other out is looked at in sum only.
    """
    asked, there = Counter[str](), Counter[str]()
    for amounts in reserved(config, dict(counts)).values():
        asked.update(amounts)
    for _, amounts in nodes:
        there.update(amounts)
    if short := _short(asked, there):
        actors = ", ".join(f"{count} {role}" for role, count in counts.items() if count)
        return f"{actors} ({'; '.join(map(str, short))})"
    crowded = (_no_place(role, count, config, nodes) for role, count in counts.items() if count)
    return next(filter(None, crowded), None)


def _no_place(role: str, count: int, config: ClusterConfig, nodes: Sequence[Node]) -> str | None:
    each = bundle(getattr(config, role))
    places = sum(_fitting(each, amounts) for _, amounts in nodes) if each else count
    if places >= count:
        return None
    if places:
        return f"{count} {role}, each on one node: they have room for {int(places)}"
    best, there = min(nodes, key=lambda node: _misfit(each, node[1]))
    short = "; ".join(map(str, _short(each, there)))
    return f"one {role} on one node, of which {best} comes nearest ({short})"


def _short(asked: Amounts, there: Amounts) -> list[_Short]:
    compared = (_Short(name, amount, there.get(name, 0.0)) for name, amount in asked.items())
    return [each for each in compared if each.asked > each.there + _ROUNDING]


def _fitting(each: Amounts, there: Amounts) -> int:
    """Return how many bundles an empty machine holds."""
    return min(
        math.floor(there.get(name, 0.0) / amount + _ROUNDING) for name, amount in each.items()
    )


def _misfit(each: Amounts, there: Amounts) -> tuple[int, float]:
    """Return how far a machine is from holding a bundle: resources it is short of, and how much."""
    short = _short(each, there)
    return len(short), sum(1 - lack.there / lack.asked for lack in short)
