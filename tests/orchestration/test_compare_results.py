"""What finished runs come to in CSV files: every number where a reader looks for it."""

import csv
from pathlib import Path

import pytest

from orchestration.comparison_progress import Progress
from orchestration.comparison_report import write_tables
from orchestration.comparison_results import length_cuts, read_entries
from orchestration.comparison_runs import planned_runs
from orchestration.length_buckets import bucket_names, cuts_of, in_buckets
from orchestration.training_curves import extremes, read_curves
from tests.orchestration.comparison_builders import TEACHER, finish, plan, prompts


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _report(home: Path, **changes) -> Path:
    given = plan(home, dataset="E2E", **changes)
    for run in (runs := planned_runs(given)):
        teacher = TEACHER if run is not runs[0] else None
        finish(run, 50.0, 60.0 + 10 * run.seed, teacher=teacher)
    return write_tables(given, runs, read_entries(Progress(runs).done())).parent


def _values(home: Path) -> dict[tuple[str, str, str], float]:
    rows = _rows(home / "results.csv")
    return {(r["method"], r["seed"], r["metric"]): float(r["value"]) for r in rows}


def test_results_have_exactly_the_promised_columns(tmp_path):
    header = (_report(tmp_path) / "results.csv").read_text().splitlines()[0]
    assert header == "dataset,method,seed,metric,value"


def test_every_score_of_methods_warm_start_and_teacher_is_a_line(tmp_path):
    values = _values(_report(tmp_path))
    assert values["dpkd", "0", "rouge_l"] == 55.0
    assert values["dpkd", "1", "greedy_rouge_l"] == 65.0
    assert values["sft", "1", "nll_nats"] == 1.5
    assert values["warm start", "0", "rouge_l"] == 25.0
    assert values["teacher", "1", "rouge_l"] == 65.0
    assert ("teacher", "0", "wall_seconds") not in values


def test_what_a_run_took_is_there_too(tmp_path):
    values = _values(_report(tmp_path))
    assert values["dpkd", "0", "wall_seconds"] == 90.0
    assert values["dpkd", "0", "seconds_per_step"] == 2.0
    assert values["dpkd", "0", "teacher_tokens"] == 1_000_000


def test_length_buckets_split_at_the_median_and_the_mean(tmp_path):
    # Two prompts, of 10 and 11 words: both cuts are at 11.
    values = _values(_report(tmp_path))
    assert values["dpkd", "0", "rouge_l_bucket_0"] == 50.0
    assert values["dpkd", "0", "rouge_l_bucket_1"] == 60.0
    assert values["dpkd", "1", "exact_match_bucket_1"] == 0.0


def test_length_cuts_of_the_plan_go_before_those_of_the_data(tmp_path):
    values = _values(_report(tmp_path, length_cuts=[10, 30]))
    assert ("dpkd", "0", "rouge_l_bucket_0") not in values
    assert values["dpkd", "0", "rouge_l_bucket_1"] == 55.0


def test_rows_have_every_prompt_of_every_method(tmp_path):
    rows = _rows(_report(tmp_path) / "rows.csv")
    assert len(rows) == 2 * 2 * 4  # prompts, seeds, methods and the two other rows
    row = next(r for r in rows if (r["method"], r["seed"], r["row"]) == ("sft", "1", "1"))
    assert (row["dataset"], row["rouge_l"], row["reference_words"]) == ("E2E", "70.0", "11")


def test_a_run_that_only_measured_likelihood_leaves_no_text_scores(tmp_path):
    runs = planned_runs(plan(tmp_path))
    finish(runs[1], 50.0, 60.0, eval={"before": {"nll_nats": 2.0}, "after": {"nll_nats": 1.0}})
    (runs[1].folder / "scores.jsonl").unlink()
    warm, method = read_entries([runs[1]])
    assert warm.scores == {"nll_nats": 2.0}
    assert method.scores["nll_nats"] == 1.0
    assert method.prompts == []
    assert length_cuts([warm, method]) == ()


def test_cuts_are_whole_words_and_one_where_median_and_mean_agree():
    assert cuts_of([1, 2, 3, 20]) == (3, 7)
    assert cuts_of([4, 4, 4]) == (4,)


def test_buckets_are_named_by_what_they_hold():
    assert bucket_names((30, 70)) == ["under 30", "30 to 69", "70 and more"]
    assert bucket_names((5, 6)) == ["under 5", "5", "6 and more"]
    buckets = in_buckets(prompts(1.0, 2.0, 3.0, words=4), (5, 6))
    assert [[prompt.reference_words for prompt in bucket] for bucket in buckets] == [[4], [5], [6]]


def test_extremes_are_of_curves_smoothed_over_ten_steps(tmp_path):
    log = tmp_path / "metrics.jsonl"
    steps = [{"reverse_kl_first_token": 1.0, "reward_teacher": -1.0}] * 10
    steps += [{"reverse_kl_first_token": 0.0, "reward_teacher": None}] * 1
    log.write_text("".join(f"{line}\n".replace("'", '"').replace("None", "null") for line in steps))
    found = extremes(read_curves(tmp_path))
    assert found["min_reverse_kl_first_token"] == pytest.approx(0.9)
    assert found["max_reward_teacher"] == pytest.approx(-1.0)
