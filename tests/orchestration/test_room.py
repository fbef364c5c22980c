"""Which runs no cluster of these machines can ever hold, and what is said of them."""

from typing import Any

import pytest
import ray

from configs.cluster import ClusterConfig
from configs.errors import DependencyError
from orchestration.placement import require_resources
from orchestration.room import no_room

FOUR_GPUS = {"CPU": 16.0, "GPU": 4.0}


def why(
    role: dict[str, Any], *nodes: dict[str, float], count: int = 1, beside: int = 0
) -> str | None:
    config = ClusterConfig.model_validate({"sampler": role, "teacher": {"cpus": 1}})
    named = [(f"node {number}", amounts) for number, amounts in enumerate(nodes)]
    return no_room(config, {"sampler": count, "teacher": beside, "learner": 0}, named)


@pytest.mark.parametrize(
    ("role", "nodes", "count", "said"),
    [
        (
            {"cpus": 1, "gpus": 8},
            (FOUR_GPUS, FOUR_GPUS),
            1,
            "one sampler on one node, of which node 0 comes nearest (GPU: 8 asked, 4 there)",
        ),
        (
            {"cpus": 3},
            ({"CPU": 1.0}, {"CPU": 2.0}),
            1,
            "one sampler on one node, of which node 1 comes nearest (CPU: 3 asked, 2 there)",
        ),
        (
            {"cpus": 1, "gpus": 1, "custom": {"sampler": 1}},
            ({"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "sampler": 1.0}),
            1,
            "one sampler on one node, of which node 0 comes nearest (sampler: 1 asked, 0 there)",
        ),
        (
            {"cpus": 1, "gpus": 2},
            ({"CPU": 9.0, "GPU": 3.0}, {"CPU": 9.0, "GPU": 3.0}),
            3,
            "3 sampler, each on one node: they have room for 2",
        ),
        (
            {"cpus": 64},
            ({"CPU": 2.0},),
            1,
            "1 sampler (CPU: 64 asked, 2 there)",
        ),
    ],
)
def test_what_never_fits_is_named_with_what_is_missing(role, nodes, count, said):
    assert why(role, *nodes, count=count) == said


def test_what_fits_is_not_refused():
    assert why({"gpus": 4}, FOUR_GPUS, FOUR_GPUS, count=2) is None
    assert why({"cpus": 0}, {"CPU": 1.0}, count=50) is None
    assert why({"cpus": 0.1}, {"CPU": 0.3}, {"CPU": 0.3}, count=6) is None, "no rounding"
    assert why({"cpus": 1}, {"CPU": 1.0}, {"CPU": 2.0}, count=2, beside=1) is None


def test_a_role_that_the_run_has_not_is_not_placed():
    assert why({"gpus": 8}, {"CPU": 4.0}, count=0, beside=1) is None


def test_only_machines_that_live_count(monkeypatch):
    def node(alive: bool, **amounts: float) -> dict[str, Any]:
        return {"NodeManagerAddress": "10.0.0.1", "Alive": alive, "Resources": amounts}

    config = ClusterConfig.model_validate({"sampler": {"cpus": 1, "gpus": 2}})
    nodes = [node(True, CPU=4.0, GPU=1.0), node(True, CPU=4.0, GPU=1.0)]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, node(False, CPU=4.0, GPU=2.0)])
    with pytest.raises(DependencyError, match=r"node 10\.0\.0\.1 comes nearest \(GPU: 2 asked, 1"):
        require_resources(config, {"sampler": 1})
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, node(True, CPU=4.0, GPU=2.0)])
    require_resources(config, {"sampler": 1})
