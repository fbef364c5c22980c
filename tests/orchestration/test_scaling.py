"""Where the design stops scaling: in closed form, and with tuples that stand for several."""

import math
from pathlib import Path

import pytest

from configs.load import load
from orchestration import scaling
from orchestration.costs import Costs
from orchestration.costs_file import read_costs
from orchestration.scaling import laws, scaled

GIVEN = {"generate": [0.5, 0.05], "judge": 0.02, "learn": [0.1, 0.03], "latency": 0.001}
COSTS = Costs.from_dict(GIVEN)
DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"
QUICKSTART = DOCUMENT.parent / "scaling" / "quickstart.json"


def test_with_work_in_proportion_only_the_design_costs_efficiency():
    free = scaled(load("quickstart", []), COSTS, (1, 8))
    assert free[1].efficiency == pytest.approx(1, abs=0.03)
    dear = Costs.from_dict({**GIVEN, "driver": 0.002})
    rows = scaled(load("quickstart", []), dear, (1, 8, 64))
    assert rows[1].efficiency == pytest.approx(1, abs=0.03), "46 calls of 2 ms are little to 2.1 s"
    assert rows[2].efficiency < 0.85, "326 of them are a third of it"
    calls = [row.forecast.driver_calls for row in rows]
    per_sampler = (calls[2] - calls[1]) / 56
    assert (calls[1] - calls[0]) / 7 == pytest.approx(per_sampler), "calls grow linearly"
    assert per_sampler == pytest.approx(5), "generate, respond, judge, put, load_weights"


def test_laws_are_lines_and_what_takes_a_whole_step_first_comes_first():
    costs = Costs.from_dict(
        {
            **GIVEN,
            "driver": 0.002,
            "queue": 0.001,
            "latency": {"forward_backward": [0.05, 0.001]},
        }
    )
    rows = scaled(load("quickstart", []), costs, (1, 4, 16))
    step = rows[0].forecast.step_seconds
    found = {law.resource: law for law in laws(rows)}
    assert found["driver"][1:3] == pytest.approx((7 * 0.002, 5 * 0.002))
    assert found["queue"][1:3] == pytest.approx((3 * 0.001, 0.001))
    assert found["tuples"][1:3] == pytest.approx((0.05, 32 * 0.001))
    assert found["tuples"].end == pytest.approx((step - 0.05) / 0.032)
    assert max(law.off for law in found.values()) < 1e-6
    assert laws(rows)[0].resource == "tuples"


def test_the_law_of_weights_says_that_they_follow_no_line():
    """A copy's time to one machine; two from three machines on; above 32 a little more of each."""
    costs = Costs.from_dict({**GIVEN, "weight_bytes": 1e9, "bandwidth": 1e10, "driver": 0.002})
    rows = scaled(load("quickstart", []), costs, (1, 4, 16, 64))
    assert [row.forecast.fan_out_seconds for row in rows] == pytest.approx([0.1, 0.2, 0.2, 0.3])
    calls = [row.forecast.driver_calls for row in rows]
    assert calls == pytest.approx([12, 7 + 6 * 4, 7 + 6 * 16, 7 + 5 * 64 + 32]), "and relay"
    (law,) = (law for law in laws(rows) if law.resource == "weights")
    assert law.off > 0.2 and law.end > 300


@pytest.mark.parametrize(
    ("costs", "overrides"),
    [
        ("quickstart.json", []),
        (
            "assumed_1b.yaml",
            ["learner.batch_size=128", "student.batch_size=128", "replay.max_tuples=1024"],
        ),
    ],
)
def test_the_document_s_tables_are_what_the_command_finds(costs, overrides):
    _, _, behind = DOCUMENT.read_text().partition(f"--costs docs/scaling/{costs} --apart")
    told = [line.split("|")[1:-1] for line in behind.splitlines() if line.startswith("| ")][1:3]
    given = read_costs(DOCUMENT.parent / "scaling" / costs)
    rows = scaled(load("quickstart", overrides), given, (1, 8))
    for cells, row in zip(told, rows, strict=True):
        seen = row.forecast
        assert [cell.strip() for cell in cells] == [
            *(str(number) for number in (row.samplers, row.teachers, row.batch)),
            f"{seen.pairs_per_second:.4g}",
            f"{row.efficiency:.0%}",
            f"{seen.queue_operations:.3g}",
            f"{seen.driver:.0%}",
            f"{1e3 * seen.driver_seconds:.0f}",
            f"{seen.fan_out_seconds:.3g}" if given.bandwidth else "-",
            f"{seen.tuples_seconds:.3g}",
        ]


def test_what_takes_no_time_never_ends():
    rows = scaled(load("quickstart", []), COSTS, (1, 2))
    assert {law.resource: law.end for law in laws(rows)}["weights"] == math.inf


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["student.batch_size=16"],
        ["teacher.replicas=2"],
        ["student.replicas=2", "teacher.replicas=3", "learner.ranks=4"],
    ],
)
def test_a_tuple_that_stands_for_several_costs_what_they_do(overrides, monkeypatch):
    config, costs = load("quickstart", overrides), read_costs(QUICKSTART)
    coarse = scaled(config, costs, (1, 6))
    monkeypatch.setattr(scaling, "_grain", lambda _: 1)
    for row, fine in zip(coarse, scaled(config, costs, (1, 6)), strict=True):
        assert row.forecast.step_seconds == pytest.approx(fine.forecast.step_seconds)
        assert row.forecast.pairs_per_second == pytest.approx(fine.forecast.pairs_per_second)
        assert row.forecast.tuples_seconds == pytest.approx(fine.forecast.tuples_seconds)


def test_a_call_of_a_whole_batch_is_one_grain():
    assert scaling._grain(load("quickstart")) == 32
    assert scaling._grain(load("quickstart", ["negatives.samples=2"])) == 1
