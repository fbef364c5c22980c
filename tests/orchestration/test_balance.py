"""Which numbers of parts are advised: by the simulation's rates, and none that are slower."""

from pathlib import Path

import pytest

from configs.load import load
from configs.run import RunConfig
from orchestration.balance import APART, balanced, with_parts
from orchestration.costs import Costs
from orchestration.costs_file import read_costs
from orchestration.simulation import simulate

ROOT = Path(__file__).parents[2]
COSTS = Costs.from_dict({"generate": [0.5, 0.05], "judge": 0.02, "learn": [0.1, 0.03]})


def rate(config: RunConfig, costs: Costs) -> float:
    return simulate(config, costs, cores=APART, steps=8).pairs_per_second


def counts(config: RunConfig) -> tuple[int, int, int]:
    return config.student.replicas, config.teacher.replicas, config.learner.ranks


def test_where_the_fixed_part_of_a_draw_exceeds_a_step_more_samplers_are_not_advised():
    config = load(str(ROOT / "deploy" / "overlays" / "gpu" / "recipe.yaml"))
    costs = read_costs(ROOT / "docs" / "scaling" / "assumed_1b.yaml")
    found = balanced(config, costs)
    assert found.config.student.replicas <= 8, "every sampler's weights cross the network"
    assert found.forecast.pairs_per_second >= 0.99 * rate(config, costs)


@pytest.mark.parametrize(
    "costs",
    [
        {"generate": [1, 0], "judge": 0.001, "learn": 0.001},
        {"generate": 0.01, "judge": 0.01, "learn": 0.01, "driver": 0.2},
        {"generate": [3, 0.1], "judge": [2, 0], "learn": [0.1, 0], "publish": 2, "load": 1},
        {"generate": 0.1, "judge": 0.1, "learn": 0.1, "weight_bytes": 1e9, "bandwidth": 1e9},
    ],
)
@pytest.mark.parametrize("given", ["student.replicas=1", "student.replicas=5"])
def test_nothing_slower_than_the_recipe_is_advised(costs, given):
    config, made = load("quickstart", [given]), Costs.from_dict(costs)
    assert rate(balanced(config, made).config, made) >= 0.999 * rate(config, made)


def test_a_learner_that_holds_all_up_gets_ranks():
    slow = Costs.from_dict({"generate": 0.001, "judge": 0.001, "learn": 1})
    found = balanced(load("quickstart"), slow)
    assert counts(found.config) == (1, 1, 32), "a pair a rank: there are no more shares"
    assert found.forecast.pairs_per_second == pytest.approx(32, rel=0.05)


def test_ranks_end_where_their_all_reduce_takes_what_they_save():
    slow = Costs.from_dict({"generate": 0.001, "judge": 0.001, "learn": 1, "all_reduce": 30})
    assert balanced(load("quickstart"), slow).config.learner.ranks == 1
    some = Costs.from_dict({"generate": 0.001, "judge": 0.001, "learn": 1, "all_reduce": 1})
    assert 8 <= balanced(load("quickstart"), some).config.learner.ranks <= 32


def test_ranks_have_even_shares_of_a_batch():
    slow = Costs.from_dict({"generate": 0.001, "judge": 0.001, "learn": 1})
    found = balanced(load("quickstart", ["learner.batch_size=30"]), slow)
    assert found.config.learner.ranks == 30


def test_no_kind_of_part_by_itself_would_gain_by_twice_as_many():
    costs = Costs.from_dict({"generate": 0.05, "judge": 0.02, "learn": [0.3, 0.03], "load": 0.3})
    found = balanced(load("quickstart"), costs)
    parts = dict(zip(("samplers", "teachers", "ranks"), counts(found.config), strict=True))
    assert found.config.replay.max_policy_lag == 1, "in lockstep they would take turns"
    best = rate(found.config, costs)
    assert best > 1.9 * rate(load("quickstart"), costs)
    for kind, count in parts.items():
        other = with_parts(found.config, **{**parts, kind: min(32, 2 * count)}, lag=1)
        assert rate(other, costs) < 1.06 * best


def test_few_parts_are_advised_where_few_will_do():
    config = load("quickstart", ["student.replicas=8", "teacher.replicas=4"])
    slow = Costs.from_dict({"generate": 0.001, "judge": 0.001, "learn": [5, 0]})
    assert counts(balanced(config, slow).config) == (1, 1, 1)


def test_a_recipe_that_allows_one_part_of_a_kind_is_advised_no_other():
    found = balanced(load("quickstart", ["deterministic=true"]), COSTS).config
    assert counts(found)[:2] == (1, 1) and found.replay.max_policy_lag == 0
    found = balanced(load("quickstart", ["cluster.local=true"]), COSTS).config
    assert counts(found) == (1, 1, 1) and found.replay.max_policy_lag == 1
