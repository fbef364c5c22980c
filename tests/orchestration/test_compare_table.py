"""`table.md`: means, deviations, intervals, and what it says when something is missing."""

from pathlib import Path

import pytest

from orchestration.comparison_progress import Progress
from orchestration.comparison_report import write_tables
from orchestration.comparison_results import Entry, read_entries
from orchestration.comparison_runs import planned_runs
from orchestration.comparison_table import interval_cell, mean_and_deviation, paired_differences
from tests.orchestration.comparison_builders import TEACHER, finish, plan, prompts


def _table(home: Path, scores: dict[str, tuple[float, ...]], **changes) -> str:
    """Finish the runs that ``scores`` names, by method and seed, and write the report."""
    given = plan(home, dataset="E2E", labels={"dpkd": "DPKD, Eq 9"}, **changes)
    for run in (runs := planned_runs(given)):
        if run.name in scores:
            finish(run, *scores[run.name], teacher=TEACHER if run is not runs[0] else None)
    return write_tables(given, runs, read_entries(Progress(runs).done())).read_text()


FULL = {
    "dpkd-seed0": (52.0, 62.0),
    "dpkd-seed1": (54.0, 64.0),
    "sft-seed0": (50.0, 60.0),
    "sft-seed1": (52.0, 62.0),
}


def _line(table: str, section: str, label: str) -> list[str]:
    body = table.split(f"## {section}\n")[1].split("\n## ", maxsplit=1)[0]
    [line] = [line for line in body.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_scores_are_means_and_deviations_over_seeds(tmp_path):
    table = _table(tmp_path, FULL)
    # Seeds 57 and 59: standard deviation sqrt(2).
    assert _line(table, "Scores", "DPKD, Eq 9")[1:3] == ["58.0 ± 1.4", "63.0 ± 1.4"]
    assert _line(table, "Scores", "warm start")[1] == "25.0 ± 0.0"
    assert _line(table, "Scores", "teacher")[1] == "65.0 ± 0.0"


def test_a_constant_difference_to_the_baseline_is_bold_and_a_point(tmp_path):
    line = _line(_table(tmp_path, FULL), "Difference to sft", "DPKD, Eq 9")
    assert line[1] == "**+2.00 [+2.00, +2.00]**"
    assert line[3] == "+0.00 [+0.00, +0.00]"


def test_without_a_baseline_there_are_no_differences(tmp_path):
    assert "Difference" not in _table(tmp_path, FULL, baseline=None)


def test_gains_are_of_the_warm_start_per_minute_and_per_million_tokens(tmp_path):
    # From 25 to 57 and 59 in 30 steps of 2 s, one minute, with a million teacher tokens.
    line = _line(_table(tmp_path, FULL), "Cost", "DPKD, Eq 9")
    assert line[1] == "2.00 ± 0.00"
    assert line[4:6] == ["33.00 ± 1.41", "33.00 ± 1.41"]


def test_length_tables_have_the_buckets_for_columns(tmp_path):
    table = _table(tmp_path, FULL)
    assert "| | under 11 | 11 and more |" in table
    line = _line(table, "Rouge-L (sampled) by length", "DPKD, Eq 9")
    assert line[1:] == ["53.00 ± 1.41", "63.00 ± 1.41"]


def test_a_table_of_half_a_plan_names_what_is_missing(tmp_path):
    table = _table(tmp_path, {name: FULL[name] for name in ("dpkd-seed0", "sft-seed0")})
    assert "**Not done, or failed: dpkd-seed1, sft-seed1.**" in table
    assert _line(table, "Scores", "DPKD, Eq 9")[1] == "57.0"


def test_a_method_that_sees_fewer_prompts_is_said_to(tmp_path):
    several = ["objective.type=dpkd", "negatives.samples=4"]
    methods = {"dpkd": {"overrides": several}, "sft": {"overrides": ["objective.type=sft"]}}
    table = _table(tmp_path, FULL, methods=methods)
    assert "but of DPKD, Eq 9 (8 a step, 4 pairs of each).\n" in table
    assert "pairs of each" not in _table(tmp_path / "one", FULL)


def test_the_table_says_how_its_intervals_are_drawn(tmp_path):
    table = _table(tmp_path, FULL)
    assert "Crossed bootstrap, 10,000 draws: seeds, and prompts, the same for all seeds" in table


def test_a_missing_baseline_leaves_dashes(tmp_path):
    table = _table(tmp_path, {"dpkd-seed0": (52.0, 62.0)})
    assert _line(table, "Difference to sft", "DPKD, Eq 9")[1:] == ["-"] * 5


def test_unequal_warm_starts_are_pointed_out(tmp_path):
    given = plan(tmp_path)
    runs = planned_runs(given)
    finish(runs[0], 50.0, 60.0, models={"student": "/a", "teacher": TEACHER})
    finish(runs[1], 50.0, 60.0, teacher=TEACHER, models={"student": "/b", "teacher": TEACHER})
    assert "not all methods started from one student on seed 0" in (
        write_tables(given, runs, read_entries(Progress(runs).done())).read_text().lower()
    )


def test_differences_are_paired_by_seed_and_row():
    def entry(seed: int, *rouge: float) -> Entry:
        return Entry(method="m", seed=seed, scores={}, prompts=prompts(*rouge), curves={})

    found = paired_differences(
        [entry(0, 10.0, 20.0, 30.0), entry(2, 1.0)], [entry(0, 9.0, 17.0), entry(1, 0.0)], "rouge_l"
    )
    assert found == [{0: 1.0, 1: 3.0}]


def test_an_interval_that_holds_zero_is_not_bold():
    assert interval_cell([{0: -1.0}, {0: 1.0}], "{:+.1f}") == "+0.0 [-1.0, +1.0]"
    assert interval_cell([], "{:+.1f}") == "-"


@pytest.mark.parametrize(("values", "cell"), [([], "-"), ([2.0], "2.0"), ([1.0, 3.0], "2.0 ± 1.4")])
def test_a_deviation_needs_two_seeds(values, cell):
    assert mean_and_deviation(values, "{:.1f}") == cell
