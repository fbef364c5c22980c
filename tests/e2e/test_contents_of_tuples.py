"""What is in tuples travels from their maker's machine to the learner's, or is lost with it."""

import asyncio

import numpy as np
import pytest

from configs.cluster import ClusterConfig, RoleResources
from configs.wire import PackedBatch, PackedTuple, Parcel, TupleHead, Uid
from orchestration.launcher import RayLauncher
from orchestration.learner_group import LearnerGroup
from orchestration.payloads import Payloads
from orchestration.roles import AnswerLost, Role, RoleDied
from tests.e2e.ray_nodes import RayNode

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
    with RayNode(tmp_path / "head.log", learner=3) as head:
        node = RayNode(tmp_path / "node.log", joins=head, teacher=1)
        try:
            config = CLUSTER.model_copy(update={"address": head.address})
            with RayLauncher(config, "test-contents") as launcher:
                asyncio.run(scenario(launcher, node))
        finally:
            node.kill()


async def scenario(launcher: RayLauncher, node: RayNode) -> None:
    maker = launcher.role("teacher-0", Maker)
    ranks = [launcher.role(f"learner-{rank}", Learner) for rank in range(3)]
    await asyncio.gather(*(role.call("build") for role in (maker, *ranks)))
    one, two = LearnerGroup(ranks[:1]), LearnerGroup(ranks[1:])
    payloads = Payloads()
    heads = [await made(maker, payloads, first) for first in (0, TUPLES, 2 * TUPLES)]
    assert [len(each) for each in heads] == [TUPLES] * 3
    mixed = [head.uid for each in heads[:2] for head in each][32:96]
    assert await one.learn(payloads.pick(mixed)) == {"first": 32.0, "tuples": 64.0}

    node.kill()
    lost = payloads.pick([head.uid for head in heads[2]])
    with pytest.raises(AnswerLost):
        await one.learn(lost)
    with pytest.raises(RoleDied) as death:
        await two.learn(lost)
    assert death.value.role == "learner-1", "others of its ranks may be in the middle of a step"
    await asyncio.gather(*(role.stop() for role in (maker, *ranks)))


async def made(maker: Role, payloads: Payloads, first: int) -> list[TupleHead]:
    heads, batch = maker.submit("judge", first, returns=2)
    payloads.add([Uid(0, ordinal, 0) for ordinal in range(first, first + TUPLES)], batch)
    return await maker.fetch(heads)
