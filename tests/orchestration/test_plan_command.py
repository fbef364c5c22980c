"""`python -m orchestration.plan`: what it prints, refuses, and makes of measurements."""

import json
from pathlib import Path

import pytest

from configs.errors import DependencyError
from orchestration import calibration, plan
from orchestration.costs import Costs
from orchestration.costs_file import read_costs
from orchestration.plan import main

ROOT = Path(__file__).parents[2]
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
    assert "in balance, each part on a core or GPU of its own: student.replicas=" in said
    assert "parts instead of 3" in said
    assert "│ learner │ 1     │ 28%" in said and "disk: run folder" in said


def test_the_table_of_scale_has_a_row_for_each_number_and_says_what_ends_it(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(plan, "SAMPLERS", (1, 4, 16))
    assert main(["quickstart", "--costs", costs_file(tmp_path, driver=0.02), "--scale"]) == 0
    said = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in said.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows[-6:-3]] == ["1", "4", "16"]
    assert {row[-2].strip() for row in rows[-6:-3]} == {"-"}
    laws = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[-3:]}
    assert laws["driver"][:2] == ["0.14 + 0.1 N", "0.0%"], "5 calls a sampler, and 7"
    assert laws["queue"] == ["0 + 0 N", "0.0%", "never"]
    assert "first ends the driver: with " in said
    assert "weights' way to other machines is not counted: these costs have no bandwidth" in said


def test_what_rules_several_samplers_out_is_named_above_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "SAMPLERS", (1, 2))
    costs = costs_file(tmp_path)
    assert main(["quickstart", "cluster.local=true", "--costs", costs, "--scale"]) == 0
    assert "cluster.local=true allows one sampler; with more, were it" in capsys.readouterr().out


def test_the_way_of_weights_has_a_law_where_a_bandwidth_is_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "SAMPLERS", (1, 4))
    costs = costs_file(tmp_path, weight_bytes=1e9, bandwidth=1e9)
    assert main(["quickstart", "--costs", costs, "--scale"]) == 0
    said = capsys.readouterr().out
    assert "│ weights" in said and "not counted" not in said
    assert "first ends the weights: with " in said


def test_costs_may_be_as_large_as_they_are_taken(tmp_path, capsys):
    costs = costs_file(tmp_path, generate=1e6, judge=1e6, learn=1e6, driver=1e6)
    assert main(["quickstart", "--costs", costs]) == 0
    assert "150 steps of 32 pairs" in capsys.readouterr().out


def test_it_goes_to_a_thousand_samplers():
    assert plan.SAMPLERS == (1, 8, 64, 512, 1000)


@pytest.mark.parametrize("name", ["quickstart.json", "assumed_1b.yaml"])
def test_the_costs_of_the_documents_can_be_planned_with(name, capsys):
    costs = ROOT / "docs" / "scaling" / name
    assert main(["quickstart", "--costs", str(costs), "--apart"]) == 0
    assert "in balance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--costs", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["seqkd", "--costs", "{costs}"], "draws no student responses"),
        (["--costs", "{list}"], "holds no mapping"),
        (["--costs", "{costs}", "learner.stps=3"], "learner.steps"),
        (["seqkd"], "draws no student responses"),
        (["--save", "{list}/costs.json"], "costs.json cannot be written (Not a directory)"),
        (["--save", "/dev/null"], "--save /dev/null is no file to be replaced"),
        (["--costs", "{costs}", "--save", "{costs}"], "--costs makes none"),
        (["--costs", "{costs}", "--rounds", "3"], "--costs makes none"),
        (["--costs", "{costs}", "--apart", "--cores", "3"], "that they share none"),
        (["--costs", "{negative}"], "learn=-1 is no number of seconds up to 1e+06"),
        (["--costs", "{latin}"], "latin.yaml, line 1: not UTF-8"),
        (["--costs", "{keys}"], "keys.yaml: costs name 1; there are generate"),
        (["--costs", "{zeros}"], "a step takes no time at all"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(words, said, tmp_path, capsys):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "negative.yaml").write_text("{generate: 1, judge: [0, 1], learn: -1}")
    (tmp_path / "latin.yaml").write_bytes(b"generate: \xe4")
    (tmp_path / "keys.yaml").write_text("{generate: 1, judge: 1, learn: 1, 1: 2}")
    (tmp_path / "zeros.yaml").write_text("{generate: 0, judge: 0, learn: 0}")
    places = {
        **{name: str(tmp_path / f"{name}.yaml") for name in ("latin", "keys", "zeros")},
        "negative": str(tmp_path / "negative.yaml"),
        "costs": costs_file(tmp_path),
        "list": str(tmp_path / "list.yaml"),
    }
    assert main([word.format(**places) for word in words]) == 2
    assert said in capsys.readouterr().err


def test_what_was_kept_stays_until_a_calibration_has_succeeded(tmp_path, capsys, monkeypatch):
    def fails(*_: object, **__: object) -> Costs:
        raise DependencyError("the run for a calibration failed")

    kept = tmp_path / "costs.json"
    kept.write_text("what a night of measuring found")
    monkeypatch.setattr(calibration, "calibrate", fails)
    assert main(["quickstart", "--save", str(kept)]) == 3
    assert kept.read_text() == "what a night of measuring found"
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: COSTS)
    assert main(["quickstart", "--save", str(kept)]) == 0
    assert read_costs(kept) == COSTS
    assert [path.name for path in tmp_path.iterdir()] == ["costs.json"], "and no draft"


def test_a_calibration_that_is_interrupted_leaves_nothing_and_one_that_failed_its_log(
    tmp_path, monkeypatch
):
    folder = tmp_path / "runs"
    monkeypatch.setattr(plan.tempfile, "mkdtemp", lambda **_: folder.mkdir() or str(folder))
    for error, code, left in (
        (KeyboardInterrupt, 130, False),
        (DependencyError("failed"), 3, True),
    ):

        def ends(*_: object, error=error, **__: object) -> Costs:
            raise error

        monkeypatch.setattr(calibration, "calibrate", ends)
        assert main(["quickstart"]) == code
        assert folder.exists() == left


@pytest.mark.parametrize("words", [["--rounds", "x"], ["--rounds", "0"], ["--cores", "many"]])
def test_a_number_that_is_none_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(["quickstart", *words])
    said = capsys.readouterr().err
    assert f"above 0 is needed, not {words[1]!r}" in said


def test_weights_of_unknown_size_are_said_to_be_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    words = [f"cluster.{role}.gpus=0" for role in ("sampler", "teacher", "learner")]
    assert main(["gpt2_dolly", *words, "--costs", costs_file(tmp_path), "--apart"]) == 0
    said = capsys.readouterr().out
    assert said.count("GiB + weights of unknown size │") == 3, "sampler, teacher, learner"
    assert said.count("1.0 GiB + weights of unknown size,") == 2, "run folder, cache"


def test_a_gpu_s_memory_is_counted_apart_from_the_machine_s(capsys):
    recipe = ROOT / "deploy" / "overlays" / "gpu" / "recipe.yaml"
    costs = ROOT / "docs" / "scaling" / "assumed_1b.yaml"
    assert main([str(recipe), "learner.batch_size=16", "--costs", str(costs), "--apart"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ sampler")]
    assert [cell.strip() for cell in rows[0].split("│")[5:7]] == [
        "1.8 GiB",
        "weights of unknown size",
    ]
