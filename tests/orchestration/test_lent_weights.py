"""Weights that a learner lends are the published ones, whatever it learns before they are read."""

import asyncio

import numpy as np
import pytest

from configs.load import load
from orchestration.learner_group import LearnerGroup
from orchestration.payloads import Picked
from orchestration.ray_auth import settle_authentication

SIZE = 1 << 20
"""Far above what Ray answers without its object store."""


class Lender:
    """A learner whose steps change its weights in place."""

    def __init__(self) -> None:
        self.weights = np.zeros(SIZE, np.uint8)

    def publish_weights(self, lend: bool, shards: int) -> tuple[bool, list[np.ndarray]]:
        assert shards == 1
        weights = self.weights if lend else self.weights.copy()
        return lend, [weights[:9], weights[9:]]

    def probe(self, published: object) -> None:
        """Nothing to prove here."""

    def forward_backward(self, places: list[tuple[int, int]]) -> dict[str, float]:
        return {}

    def optim_step(self) -> dict[str, float]:
        self.weights += 1
        return {}


@pytest.mark.parametrize(
    ("local", "lent"), [(True, False), pytest.param(False, True, marks=pytest.mark.e2e)]
)
def test_weights_are_lent_where_ray_copies_them_and_nowhere_else(local: bool, lent: bool):
    config = load("quickstart", [f"cluster.local={str(local).lower()}"])
    settle_authentication(config.cluster)  # before Ray is imported
    from orchestration.launcher import make_launcher

    async def published() -> tuple[bool, list[np.ndarray]]:
        role = launcher.role("learner-0", Lender)
        await role.call("build")
        learner = LearnerGroup([role])
        (manifest, parts), _ = learner.publish_weights()
        for _ in range(3):
            await learner.learn(Picked([], []))
        try:
            return await role.fetch(manifest), await role.fetch(parts)
        finally:
            await role.stop()

    with make_launcher(config.cluster, "lent") as launcher:
        lend, parts = asyncio.run(published())
    assert lend is lent
    assert [part.max() for part in parts] == [0, 0]
    assert [part.nbytes for part in parts] == [9, SIZE - 9]
