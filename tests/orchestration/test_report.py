"""`report.html`: whatever a run has left, its report opens and says so."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from orchestration import report
from orchestration.report import main, write_at_the_end
from orchestration.report_figures import running_mean
from orchestration.report_story import read_story
from tests.orchestration.run_folders import STEP, told


def reported(*runs: Path, out: Path | None = None) -> str:
    """The report's HTML."""
    out = out or runs[0] / "report.html"
    assert main([*map(str, runs), "--out", str(out)]) == 0
    return out.read_text()


def titles(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_a_run_s_report_answers_the_questions_in_their_order(tmp_path):
    html = reported(told(tmp_path / "run"))
    assert titles(html) == [
        "What came out",
        "Does it learn?",
        "Reward against reverse KL",
        "What befell it",
        "What became of every prompt",
        "How it was made",
    ]
    assert "<tr><th>consumed by a step</th><td>1</td></tr>" in html
    assert "<tr><th>dropped: poison</th><td>1</td></tr>" in html
    assert "<tr><th>ray</th><td>2.60.0</td></tr>" in html


def test_evaluations_in_between_are_drawn_at_their_steps(tmp_path):
    looks = (("before", 0, 40.0), ("step-10", 10, 55.0), ("step-20", 20, 50.0), ("after", 30, 60.0))
    scores = [
        {"when": when, "step": step, "row": 0, "rouge_l": value} for when, step, value in looks
    ]
    run = told(tmp_path / "run", scores=scores)
    curves = read_story(run).score_curves
    assert curves["step"].tolist() == [0, 10, 20, 30]
    assert curves["rouge_l"].tolist() == [40, 55, 50, 60]
    assert "How good was it when?" in titles(reported(run))
    few = told(tmp_path / "few", scores=[scores[0], scores[-1]])
    assert "How good was it when?" not in titles(reported(few)), "the table says it"


def test_nothing_is_asked_of_a_network_and_nothing_is_run(tmp_path):
    html = reported(told(tmp_path / "run"))
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert "<script" not in html and "@import" not in html


def test_what_a_run_says_is_text_and_never_markup(tmp_path):
    html = reported(told(tmp_path / "run"))
    assert "it &lt;died&gt;" in html and "<died>" not in html


def test_one_step_is_drawn_as_a_point(tmp_path):
    html = reported(told(tmp_path / "run", steps=1))
    assert "Does it learn?" in titles(html)


def test_a_run_that_failed_before_its_first_step_says_why(tmp_path):
    run = told(tmp_path / "run", steps=0, state="failed", reason="no room on the disk", events=())
    html = reported(run)
    assert "no room on the disk" in html and "No evaluation was made." in html
    assert titles(html) == ["What came out", "What became of every prompt", "How it was made"]


def test_files_that_a_crash_has_torn_or_taken_are_named(tmp_path):
    run = told(tmp_path / "run", state="running")
    (run / "status.json").unlink()
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 31, "lo')
    html = reported(run)
    assert "status.json is missing" in html
    assert len(read_story(run).curves["step"]) == 30


def test_scores_come_from_single_prompts_where_there_is_no_summary(tmp_path):
    scores = [
        {"when": "before", "step": 0, "row": row, "rouge_l": value}
        for row, value in enumerate((40.0, 60.0))
    ]
    html = reported(told(tmp_path / "run", state="failed", scores=scores))
    assert "<td>student before</td><td>50.0</td><td>-</td>" in html


def test_samples_stand_beside_each_other_in_the_order_of_time(tmp_path):
    samples = [
        {"when": when, "step": 0, "prompt": "P", "response": f"said {when}", "references": ["R"]}
        for when in ("teacher", "before", "step-10", "after")
    ]
    html = reported(told(tmp_path / "run", samples=samples))
    said = re.findall(r"said [a-z0-9-]+", html)
    assert said == ["said before", "said step-10", "said after", "said teacher"]
    assert "No picture of single tokens: the run has left no student." in html


def test_a_step_without_a_number_leaves_a_hole_and_spoils_no_other():
    values = np.array([1.0, np.nan, 3.0])
    assert running_mean(values).tolist() == [1.0, 1.0, 2.0]
    assert np.isnan(running_mean(np.array([np.nan, 1.0]))).tolist() == [True, False]


def test_steps_without_a_number_are_drawn_and_only_they(tmp_path):
    metrics = [{"step": 1, **STEP}, {"step": 2, "loss": None}, {"step": 3, **STEP}]
    html = reported(told(tmp_path / "run", metrics=metrics))
    assert "Does it learn?" in titles(html)


def test_several_runs_are_laid_over_each_other(tmp_path):
    runs = [told(tmp_path / name) for name in ("first", "second")]
    html = reported(*runs, out=tmp_path / "both.html")
    assert "<h1>2 runs</h1>" in html
    assert titles(html).count("Does it learn?") == 1
    assert {"What befell it, first", "What befell it, second"} <= set(titles(html))


def test_two_runs_of_one_name_are_refused(tmp_path, capsys):
    runs = [told(tmp_path / place / "run") for place in ("a", "b")]
    assert main([str(run) for run in runs]) == 2
    assert "two runs are called 'run'" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_answered_with_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is no run folder: it has no config.yaml" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "report.html"
    assert main([str(told(tmp_path / "run")), "--out", str(out)]) == 2
    assert f"the report {out} cannot be written" in capsys.readouterr().err


def test_a_run_does_not_fail_of_its_report(tmp_path, monkeypatch):
    run = told(tmp_path / "run")
    assert write_at_the_end(run) == run / "report.html"

    def page(*_: Any) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr(report, "page", page)
    assert write_at_the_end(run) is None
