"""What is in tuples travels from their maker's machine to the learner's, or is lost with it."""

import asyncio
from typing import Any

import numpy as np
import pytest

from configs.cluster import ClusterConfig, RoleResources
from configs.wire import PackedBatch, PackedTuple, Parcel, TupleHead, Uid
from orchestration.launcher import RayLauncher
from orchestration.learner_group import LearnerGroup
from orchestration.payloads import Payloads
from orchestration.roles import AnswerLost, Role, RoleDied
from tests.e2e.ray_nodes import RayNode, two_machines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CLUSTER = ClusterConfig(
    teacher=RoleResources(cpus=0, custom={"teacher": 1.0}),
    learner=RoleResources(cpus=0, custom={"learner": 1.0}),
)
TUPLES, BYTES = 64, 4096  # more than Ray sends inside a message


class Maker:
    """Makes a batch of which every tuple is filled with its ordinal."""

    def judge(self, first: int) -> Parcel:
        return PackedBatch(
            PackedTuple(Uid(0, ordinal, 0), 0, True, np.full(BYTES, ordinal % 256, np.uint8))
            for ordinal in range(first, first + TUPLES)
        ).parcel()


class Learner:
    """Says what it was given."""

    def forward_backward(
        self, places: list[tuple[int, int]], *batches: list[PackedTuple]
    ) -> dict[str, float]:
        given = [batches[which][place] for which, place in places]
        assert all((each.payload == each.uid.ordinal % 256).all() for each in given)
        return {"first": float(given[0].uid.ordinal), "tuples": float(len(given))}

    def optim_step(self) -> dict[str, float]:
        return {}


def test_contents_come_from_where_they_were_made_and_are_missed_once_that_is_gone(tmp_path):
    with two_machines(tmp_path, head={"learner": 3}, other={"teacher": 1}) as (head, node):
        config = CLUSTER.model_copy(update={"address": head.address})
        with RayLauncher(config, "test-contents") as launcher:
            learned, missed = asyncio.run(scenario(launcher, node))
    assert learned == {"first": 32.0, "tuples": 64.0}, "halves of two batches"
    alone, together = missed
    assert isinstance(alone, AnswerLost)
    assert isinstance(together, RoleDied) and not isinstance(together, AnswerLost)
    assert together.role == "learner-1", "others of its ranks may be in the middle of a step"


async def scenario(launcher: RayLauncher, node: RayNode) -> tuple[Any, Any]:
    """Return what was learned, and what one rank and two hear once the maker's machine is gone."""
    maker = launcher.role("teacher-0", Maker)
    ranks = [launcher.role(f"learner-{rank}", Learner) for rank in range(3)]
    await asyncio.gather(*(role.call("build") for role in (maker, *ranks)))
    one, two = LearnerGroup(ranks[:1]), LearnerGroup(ranks[1:])
    payloads = Payloads()
    heads = [await made(maker, payloads, first) for first in (0, TUPLES, 2 * TUPLES)]
    mixed = [head.uid for each in heads[:2] for head in each][32:96]
    learned = await one.learn(payloads.pick(mixed))
    node.kill()
    lost = payloads.pick([head.uid for head in heads[2]])
    missed = await asyncio.gather(one.learn(lost), two.learn(lost), return_exceptions=True)
    await asyncio.gather(*(role.stop() for role in (maker, *ranks)))
    return learned, missed


async def made(maker: Role, payloads: Payloads, first: int) -> list[TupleHead]:
    heads, batch = maker.submit("judge", first, returns=2)
    payloads.add([Uid(0, ordinal, 0) for ordinal in range(first, first + TUPLES)], batch)
    return await maker.fetch(heads)
