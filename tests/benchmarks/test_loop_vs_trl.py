import ast
import json
from pathlib import Path

import pytest

from benchmarks import loop_run, loop_vs_trl
from benchmarks.loop_models import CASES, Case, measured_steps, models_in, row_of
from benchmarks.loop_run import RECIPE, ROOT, Seen
from benchmarks.loop_vs_trl import Way
from configs.load import load


def steps(*seconds: float) -> list[dict[str, float]]:
    return [
        {"seconds": each, "pairs": 32, "response_length_student": 10.0 * number}
        for number, each in enumerate(seconds, 1)
    ]


def test_speed_is_pairs_over_the_seconds_of_the_counted_steps() -> None:
    seen = Seen.of(steps(1.0, 3.0), {})
    assert seen.pairs_per_second == 64 / 4
    assert seen.response_tokens == 15


def test_busy_is_a_share_of_a_parts_own_time() -> None:
    time = {"busy_seconds": 3.0, "idle_seconds": 1.0, "wall_seconds": 4.0}
    assert Seen(1.0, 1.0, {"time": {"sampler": time}}).busy() == "sampler 75%"


def test_warm_up_and_the_steps_that_drew_nothing_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_run(monkeypatch, tmp_path, steps(100.0, 2.0, 2.0, 0.1))
    assert loop_run.run_loop([], warm_up=1, left_out=1).pairs_per_second == 16


def test_a_run_that_fails_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_run(monkeypatch, tmp_path, steps(1.0), exit_code=3)
    with pytest.raises(AssertionError, match="what it said"):
        loop_run.run_loop([])


def test_a_run_with_a_lag_makes_as_many_steps_more() -> None:
    case = CASES["tiny"]
    assert measured_steps(case, 0) == ["learner.steps=40", "replay.max_policy_lag=0"]
    assert measured_steps(case, 1) == ["learner.steps=41", "replay.max_policy_lag=1"]


def test_the_recipe_is_one_that_a_user_could_run() -> None:
    config = load(str(RECIPE), [*models_in(Path("/models")), *measured_steps(CASES["tiny"], 0)])
    assert config.student.model == "/models/student"
    assert (config.student.sampling.temperature, config.student.sampling.top_p) == (1.0, 1.0)
    assert config.student.sampling.max_new_tokens == 64
    assert config.learner.batch_size == 32
    assert config.teacher.cache


@pytest.mark.parametrize(
    ("name", "student", "teacher"), [("tiny", 1.1e6, 6.9e6), ("small", 10.2e6, 41.7e6)]
)
def test_the_models_have_the_sizes_that_the_figure_names(
    name: str, student: float, teacher: float
) -> None:
    case = CASES[name]
    for sized, expected in ((case.student, student), (case.teacher, teacher)):
        width = sized.make.hidden_size
        rows = case.vocabulary + sized.make.context
        weights = rows * width + sized.make.layers * (12 * width**2 + 13 * width) + 2 * width
        assert weights == pytest.approx(expected, rel=0.03)


def test_prompts_are_exported_as_text_of_the_same_ids() -> None:
    assert row_of(Letters(), [72, 105]) == {"prompt": "Hi", "ids": [72, 105]}
    with pytest.raises(AssertionError, match="tokenised otherwise"):
        row_of(Letters(), [72, 0, 105])


def test_trl_runs_as_it_is_fastest_and_the_figure_is_of_ours_overlapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ours(case: Case, folder: Path, *, lag: int, threads: int, cached: bool = True) -> float:
        return {(1, 1): 60.0, (0, 2): 40.0}[lag, threads]

    def trl(case: Case, folder: Path, way: Way) -> float:
        return {Way(1, False): 15.0, Way(2, False): 20.0, Way(2, True): 24.0}[way]

    monkeypatch.setattr(loop_vs_trl, "made", lambda name: Path())
    monkeypatch.setattr(loop_vs_trl, "CORES", 2)
    monkeypatch.setattr(loop_vs_trl, "EACH", 1)
    monkeypatch.setattr(loop_vs_trl, "ours", ours)
    monkeypatch.setattr(loop_vs_trl, "trl", trl)
    assert list(loop_vs_trl.ratios("tiny", 2)) == [60 / 24] * 2


def test_both_environments_have_one_version_of_what_they_share() -> None:
    ours, peer = pins("cpu"), pins("peer")
    assert peer["trl"] == "1.16.0"
    assert "trl" not in ours
    shared = ours.keys() & peer.keys()
    assert {"torch", "transformers", "tokenizers", "numpy"} <= shared
    assert {name: peer[name] for name in shared} == {name: ours[name] for name in shared}


def test_the_peer_imports_nothing_of_ours() -> None:
    tree = ast.parse((ROOT / "benchmarks" / "peer_trl.py").read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
    assert not roots & {"benchmarks", "configs", "actors", "learner", "orchestration", ""}


class Letters:
    """A tokenizer of one id a character; id 0 is written as nothing."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(each) for each in ids if each)

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(each) for each in text]}


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower(): version for name, version in pairs}


def fake_run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, lines: list[dict[str, float]], exit_code: int = 0
) -> None:
    """Let a script stand in for the run, which writes what a run writes."""
    (folder / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "fake").write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in output=*) at="${word#output=}/loop";; esac; done\n'
        f'mkdir "$at"; cp {folder}/lines "$at/metrics.jsonl"; echo "{{}}" > "$at/summary.json"\n'
        f"echo what it said; exit {exit_code}\n"
    )
    (folder / "fake").chmod(0o755)
    monkeypatch.setattr(loop_run, "ISOLATED", folder / "fake")
