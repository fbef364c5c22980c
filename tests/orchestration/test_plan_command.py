"""`python -m orchestration.plan`: what it prints, refuses, and makes of measurements."""

import json
from pathlib import Path

import pytest

from configs.load import load
from orchestration import plan
from orchestration.balance import balanced, scaled
from orchestration.costs import Costs
from orchestration.plan import main
from orchestration.simulation import simulate

GIVEN = {"generate": [0.5, 0.05], "judge": 0.02, "learn": [0.1, 0.03], "latency": 0.001}
COSTS = Costs.from_dict(GIVEN)


def costs_file(folder: Path, **more: float) -> str:
    path = folder / "costs.json"
    path.write_text(json.dumps({**GIVEN, **more}))
    return str(path)


def test_it_says_how_long_which_part_holds_it_up_and_what_would_balance_it(tmp_path, capsys):
    assert main(["quickstart", "--costs", costs_file(tmp_path), "--apart"]) == 0
    said = capsys.readouterr().out
    # In lockstep a step is 2.1 s of drawing, 0.64 s of judging, 1.06 s of learning, and the calls.
    assert "150 steps of 32 pairs, 3.81 s each, 8.4 pairs/s: 9.5 min" in said
    assert "bottleneck: the sampler" in said
    assert "student.replicas=3 teacher.replicas=1 learner.ranks=1" in said
    assert "│ learner │ 1     │ 28%" in said and "disk: run folder" in said


def test_balance_gives_samplers_no_longer_than_the_learner_takes():
    config = balanced(load("quickstart", []), COSTS)
    # A third of 32 is 11 prompts: 1.05 s, and the learner takes 1.06 s.
    assert config.student.replicas == 3
    assert config.replay.max_policy_lag == 1, "in lockstep they would take turns"
    seen = simulate(config, COSTS, cores=99)
    assert (
        seen.pairs_per_second
        > 1.9 * simulate(load("quickstart", []), COSTS, cores=99).pairs_per_second
    )


def test_with_work_in_proportion_only_the_design_costs_efficiency():
    free = scaled(load("quickstart", []), COSTS, (1, 8))
    assert free[1].efficiency == pytest.approx(1, abs=0.03)
    dear = Costs.from_dict({**GIVEN, "driver": 0.02})
    rows = scaled(load("quickstart", []), dear, (1, 8, 64))
    assert rows[1].efficiency == pytest.approx(1, abs=0.03), "46 calls fit beside a step"
    assert rows[2].efficiency < 0.6, "326 calls of 20 ms are longer than a step"
    calls = [row.forecast.driver_calls for row in rows]
    per_sampler = (calls[2] - calls[1]) / 56
    assert (calls[1] - calls[0]) / 7 == pytest.approx(per_sampler), "calls grow linearly"
    assert per_sampler == pytest.approx(5), "generate, respond, judge, put, load_weights"


def test_the_table_of_scale_has_a_row_for_each_number(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "SAMPLERS", (1, 4, 16))
    assert main(["quickstart", "--costs", costs_file(tmp_path), "--scale"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows[-3:]] == ["1", "4", "16"]


@pytest.mark.parametrize("name", ["quickstart.json", "assumed_1b.yaml"])
def test_the_costs_of_the_documents_can_be_planned_with(name, capsys):
    costs = Path(__file__).parents[2] / "docs" / "scaling" / name
    assert main(["quickstart", "--costs", str(costs), "--apart"]) == 0
    assert "in balance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--costs", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["seqkd", "--costs", "{costs}"], "draws no student responses"),
        (["--costs", "{list}"], "holds no mapping"),
        (["--costs", "{costs}", "learner.stps=3"], "learner.steps"),
        (["seqkd"], "draws no student responses"),
        (["--save", "{list}/costs.json"], "costs.json cannot be written (Not a directory)"),
        (["--costs", "{negative}"], "learn=-1 is no number of seconds"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(words, said, tmp_path, capsys):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "negative.yaml").write_text("{generate: 1, judge: [0, 1], learn: -1}")
    places = {
        "negative": str(tmp_path / "negative.yaml"),
        "costs": costs_file(tmp_path),
        "list": str(tmp_path / "list.yaml"),
    }
    assert main([word.format(**places) for word in words]) == 2
    assert said in capsys.readouterr().err
