"""The simulation against what can be said in closed form."""

import asyncio
from dataclasses import replace

import pytest

from configs.errors import ConfigError
from configs.load import load
from configs.run import RunConfig
from orchestration.costs import Costs, Linear
from orchestration.simulated_machine import Cores, Line
from orchestration.simulation import Forecast, simulate
from orchestration.virtual_time import NothingHappensError, run_in_virtual_time

COSTS = Costs(generate=Linear(0.5, 0.05), judge=Linear(0.0, 0.02), learn=Linear(0.1, 0.03))
"""At 32 pairs: 2.1 s to draw, 0.64 s to judge, 1.06 s to learn."""


def recipe(lag: int = 0, *overrides: str) -> RunConfig:
    return load("quickstart", [f"replay.max_policy_lag={lag}", *overrides])


def forecast(config: RunConfig, costs: Costs = COSTS, cores: float = 99) -> Forecast:
    return simulate(config, costs, cores=cores)


def test_time_jumps_and_nobody_waits_for_ever():
    async def two_hours() -> float:
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(two_hours()) == pytest.approx(7200)
    with pytest.raises(NothingHappensError):
        run_in_virtual_time(asyncio.Event().wait())


def test_three_on_two_cores_each_get_two_thirds_of_one():
    async def story() -> list[float]:
        cores, loop = Cores(2), asyncio.get_running_loop()

        async def one(seconds: float) -> float:
            await cores.work(seconds)
            return loop.time()

        return list(await asyncio.gather(one(2), one(2), one(4)))

    # Together until each has had 2 (at 3 s); the third then has a core of its own for its other 2.
    assert run_in_virtual_time(story()) == pytest.approx([3, 3, 5])


def test_a_line_serves_one_after_the_other():
    async def story() -> list[float]:
        line, loop = Line(), asyncio.get_running_loop()

        async def one() -> float:
            await line.serve(1.5)
            return loop.time()

        return list(await asyncio.gather(one(), one(), one()))

    assert run_in_virtual_time(story()) == pytest.approx([1.5, 3, 4.5])


def test_in_lockstep_a_step_is_the_sum_of_its_parts():
    assert forecast(recipe(0)).step_seconds == pytest.approx(2.1 + 0.64 + 1.06)


def test_overlapped_the_slowest_part_sets_the_pace():
    # The sampler draws the next batch while the teacher judges and the learner learns.
    for lag in (1, 2):
        assert forecast(recipe(lag)).step_seconds == pytest.approx(2.1)
    # One batch ahead is a batch that waits, for the learner or, drawn again, for both others.
    slow = Costs(generate=Linear(0.0, 0.02), judge=Linear(0.0, 0.02), learn=Linear(0.0, 0.1))
    for lag in (1, 2):
        assert forecast(recipe(lag), slow).step_seconds == pytest.approx(3.2)


def test_two_samplers_have_a_call_of_half_a_batch_each():
    seen = forecast(recipe(0, "student.replicas=2"))
    # 16 prompts a call; one teacher judges one half after the other.
    assert seen.step_seconds == pytest.approx(0.5 + 0.8 + 0.64 + 1.06)


def test_weights_cross_a_network_in_two_copies_time_however_many_machines_there_are():
    costs = Costs(
        generate=COSTS.generate,
        judge=COSTS.judge,
        learn=COSTS.learn,
        publish=0.25,
        load=0.125,
        weight_bytes=1e9,
        bandwidth=1e10,
    )
    counts = (1, 2, 4, 32, 64)
    settings = ("learner.batch_size=64", "replay.max_tuples=256")
    seen = [forecast(recipe(0, f"student.replicas={n}", *settings), costs) for n in counts]
    fan_out = [each.fan_out_seconds for each in seen]
    assert fan_out == pytest.approx([0.1, 0.2, 0.2, 0.2, 0.3]), "32 shards, which 64 are sent"
    one = forecast(recipe(0), costs)
    assert one.step_seconds == pytest.approx(3.8 + 0.25 + 0.1 + 0.125)


def test_shares_of_work_and_rates_add_up():
    seen = forecast(recipe(0))
    assert seen.busy == pytest.approx(
        {"sampler": 2.1 / 3.8, "teacher": 0.64 / 3.8, "learner": 1.06 / 3.8}
    )
    assert seen.pairs_per_second == pytest.approx(32 / 3.8)


def test_ranks_share_a_batch():
    two = forecast(recipe(0, "learner.ranks=2"))
    assert two.step_seconds == pytest.approx(2.1 + 0.64 + 0.1 + 16 * 0.03)


def test_ranks_add_their_gradients_up_as_in_a_ring():
    costs = replace(COSTS, all_reduce=0.4)
    one, four = (forecast(recipe(0, f"learner.ranks={n}"), costs) for n in (1, 4))
    assert one.step_seconds == pytest.approx(2.1 + 0.64 + 1.06), "one has nobody to add up with"
    assert four.step_seconds == pytest.approx(2.1 + 0.64 + 0.1 + 8 * 0.03 + 2 * 0.75 * 0.4)


def test_what_all_share_is_booked_in_seconds_a_step():
    costs = replace(
        COSTS, driver=0.01, queue=0.003, latency={"forward_backward": Linear(0.1, 0.01)}
    )
    seen = forecast(recipe(0, "learner.ranks=2"), costs)
    assert seen.driver_seconds == pytest.approx(0.01 * seen.driver_calls)
    assert seen.queue_seconds == pytest.approx(0.003 * 4), "put, lease, ack, statistics"
    assert seen.tuples_seconds == pytest.approx(0.1 + 32 * 0.01), "to a rank: the whole batch"


def test_late_in_a_long_run_work_still_ends():
    # 32 prompts of 10^7 s: then a double has no nanoseconds left.
    slow = replace(COSTS, generate=Linear(0.1, 1e7 / 3))
    seen = simulate(recipe(1, "student.replicas=3"), slow, cores=2, steps=4)
    assert seen.step_seconds > 3e7


def test_costs_with_which_time_does_not_pass_are_refused():
    nothing = Costs(generate=Linear(0), judge=Linear(0), learn=Linear(0))
    with pytest.raises(ConfigError, match="a step takes no time at all"):
        forecast(recipe(1), nothing)


def test_a_thousand_samplers_are_simulated_in_seconds():
    config = recipe(1, "student.replicas=1000", "learner.batch_size=2000", "replay.max_tuples=9999")
    seen = simulate(config, COSTS, cores=9999, steps=4)
    assert seen.busy["sampler"] > 0 and seen.queue_operations > 0


def test_a_recipe_without_a_sampler_is_refused():
    with pytest.raises(ConfigError, match="draws no student responses"):
        forecast(load("seqkd", []))


def test_costs_are_read_as_they_were_written_and_slips_are_named():
    assert Costs.from_dict(COSTS.as_dict()) == COSTS
    assert Costs.from_dict({"generate": 0.1, "judge": [0, 1], "learn": 2}).generate == (0, 0.1)
    with pytest.raises(ConfigError, match=r"name lern; did you mean learn\? there are generate"):
        Costs.from_dict({"lern": 1})
    with pytest.raises(ConfigError, match="lack judge, learn"):
        Costs.from_dict({"generate": 1})
    with pytest.raises(ConfigError, match="learn='x' is no number"):
        Costs.from_dict({"generate": 1, "judge": 1, "learn": "x"})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"crowding": 5}, "crowding=5 is no share of a core's speed: 0 or more, and less than 1"),
        ({"crowding": 1}, "crowding=1 is no share"),
        ({"latency": {"genrate": 1}}, "methods of latency name genrate; did you mean generate?"),
        ({"latency": {1: 1}}, "methods of latency name 1; there are generate"),
        ({1: 2}, "costs name 1; there are generate"),
        ({1: 2, "lern": 1}, "costs name 1, lern; there are generate"),
        ({"learn": True}, "learn=True is no number of seconds up to 1e+06"),
        ({"learn": 1e200}, "learn=1e+200 is no number of seconds up to 1e+06"),
        (
            {"learn": [1, 2, 3]},
            "learn=[1, 2, 3] is no number of seconds up to 1e+06, and no [fixed, each]",
        ),
        ({"weight_bytes": -1}, "weight_bytes=-1 is no number of bytes"),
        ({"weight_bytes": 1e12, "bandwidth": 1e-9}, "which is no time to plan with"),
    ],
)
def test_a_cost_that_cannot_be_is_named_in_a_sentence(more, said):
    with pytest.raises(ConfigError) as raised:
        Costs.from_dict({"generate": 1, "judge": 1, "learn": 1, **more})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("points", "line"),
    [({8: 2.0}, (0, 0.25)), ({8: 2.0, 16: 3.0}, (1, 0.125)), ({8: 3.0, 16: 2.0}, (2, 0))],
)
def test_a_line_goes_through_what_was_measured(points, line):
    assert Linear.through(points) == pytest.approx(line)
