"""Where parts are placed on a cluster of two machines: samplers apart, ranks together."""

import asyncio

import pytest
import ray

from configs.cluster import ClusterConfig, RoleResources
from orchestration.launcher import RayLauncher
from tests.e2e.ray_nodes import two_machines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SEAT = {"seat": 1.0}
CLUSTER = ClusterConfig(
    sampler=RoleResources(cpus=0, custom=SEAT), learner=RoleResources(cpus=0, custom=SEAT)
)


class Part:
    """Is somewhere."""


def test_samplers_are_spread_ranks_are_packed_and_places_are_given_back(tmp_path):
    with two_machines(tmp_path, head={"seat": 2}, other={"seat": 2}) as (head, _):
        config = CLUSTER.model_copy(update={"address": head.address})
        with RayLauncher(config, "test-places") as launcher:
            samplers, ranks, free = asyncio.run(places(launcher))
    assert samplers == {"127.0.0.1", "127.0.0.2"}
    assert len(ranks) == 1
    assert free == 4, "what the ranks had is free again"


async def places(launcher: RayLauncher) -> tuple[set[str], set[str], float]:
    """Return the machines of two samplers, of two ranks, and what is free after them."""
    samplers = await machines(launcher, "sampler", None)
    assert await free_seats() == 4
    gang = launcher.gang("learner", 2)
    ranks = await machines(launcher, "learner", gang)
    assert gang
    gang.release()
    return samplers, ranks, await free_seats()


async def free_seats() -> float:
    """Return what is free once nothing more comes free."""
    for _ in range(50):
        if (free := ray.available_resources().get("seat", 0)) == 4:
            break
        await asyncio.sleep(0.2)
    return free


async def machines(launcher: RayLauncher, kind: str, gang) -> set[str]:
    roles = [launcher.role(f"{kind}-{index}", Part, gang=gang) for index in range(2)]
    await asyncio.gather(*(role.call("build") for role in roles))
    assert all(await asyncio.gather(*(role.is_alive(30) for role in roles)))
    found = {role.process.address for role in roles if role.process}
    await asyncio.gather(*(role.stop() for role in roles))
    return found
