"""Which figures are drawn of what, and that they show it: SVG keeps its text."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from orchestration.comparison_report import write_report
from orchestration.comparison_results import Entry
from orchestration.comparison_runs import planned_runs
from orchestration.course_plots import courses, plot_curves
from orchestration.figures import save
from orchestration.lag_plot import lag_points
from tests.orchestration.comparison_builders import TEACHER, finish, plan

LAGS = {
    "lag": {"0": [], "frozen": ["negatives.type=initial"]},
    "objective.lm_weight": [0, 0.5],
}


def _plots(home: Path, **changes) -> dict[str, str]:
    given = plan(home, seeds=[0], baseline=None, **changes)
    for run in (runs := planned_runs(given)):
        finish(run, 50.0, 60.0, teacher=TEACHER if run is not runs[0] else None)
    folder = write_report(given, runs).parent / "plots"
    assert {path.stem for path in folder.glob("*.png")} == {p.stem for p in folder.glob("*.svg")}
    return {path.stem: path.read_text() for path in folder.glob("*.svg")}


def test_a_grid_of_lags_gets_a_line_for_each_lambda(tmp_path):
    svg = _plots(tmp_path, methods={}, grid=LAGS)["lag"]
    for text in ("λ = 0<", "λ = 0.5<", ">frozen<", "warm start", "teacher", "gold NLL"):
        assert text in svg, text


def test_a_plan_of_one_lag_gets_no_lag_plot(tmp_path):
    assert set(_plots(tmp_path)) == {"curves", "reward_divergence"}


def test_lags_are_the_bounds_that_the_configuration_comes_to(tmp_path):
    grid = {"replay.max_policy_lag": [0, 3], "objective.beta": [1, 2]}
    points = lag_points(planned_runs(plan(tmp_path, methods={}, baseline=None, grid=grid)))
    assert [(point.lag, point.line) for point in points] == [
        (0, "β = 1"),
        (0, "β = 2"),
        (3, "β = 1"),
        (3, "β = 2"),
    ]


def test_curves_are_labelled_as_the_plan_says(tmp_path):
    plots = _plots(tmp_path, labels={"dpkd": "DPKD, Eq 9"})
    assert "DPKD, Eq 9" in plots["curves"]
    assert "DPKD, Eq 9" in plots["reward_divergence"]


def test_measured_noise_is_drawn(tmp_path):
    folder = tmp_path / "small" / "noise"
    folder.mkdir(parents=True)
    points = [
        {"sigma": sigma, "rouge_l": 50 - sigma, "reverse_kl_per_token": sigma} for sigma in (0, 1)
    ]
    (folder / "sft-seed0.json").write_text(json.dumps({"noise": points}))
    noise = {"sigmas": [0, 1], "method": "sft"}
    assert "reverse KL, nats per token" in _plots(tmp_path, noise=noise)["noise"]
    assert "noise" not in _plots(tmp_path / "other", noise={**noise, "method": "dpkd"})


def test_many_methods_make_the_figure_higher_and_leave_the_panels_their_room(tmp_path):
    curve = {"reward_teacher": np.arange(20.0)}
    labels = {f"m{number}": f"a method with the number {number}" for number in range(70)}
    entries = [
        Entry(method=method, seed=0, scores={}, prompts=[], curves=curve) for method in labels
    ]
    few = courses(entries, dict(list(labels.items())[:2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, that panels have collapsed to nothing
        figures = [plot_curves(found) for found in (few, courses(entries, labels))]
        for figure in figures:
            save(figure, tmp_path, "curves")
    heights = [figure.axes[0].get_window_extent().height / figure.dpi for figure in figures]
    assert heights[0] == pytest.approx(heights[1], rel=0.15)
    assert heights[0] > 2  # inches


def test_a_legend_of_long_labels_is_no_wider_than_the_figure(tmp_path):
    label = "a method whose name says everything that it does"
    curve = {"reward_teacher": np.arange(20.0)}
    entries = [
        Entry(method=m, seed=0, scores={}, prompts=[], curves=curve) for m in ("a", "b", "c")
    ]
    figure = plot_curves(courses(entries, {m: f"{label} {m}" for m in ("a", "b", "c")}))
    save(figure, tmp_path, "curves")
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    assert _plots(tmp_path / "a") == _plots(tmp_path / "b")


def test_a_point_of_a_curve_stands_at_the_last_step_of_its_window():
    def entry(seed: int, steps: int) -> Entry:
        curve = np.arange(1.0, steps + 1)
        return Entry(method="m", seed=seed, scores={}, prompts=[], curves={"reward_teacher": curve})

    trace = courses([entry(0, 12), entry(1, 13)], {"m": "M"})["M"]["reward_teacher"]
    assert trace.steps_T.tolist() == [10, 11, 12]
    assert np.allclose(trace.values_ST, [[5.5, 6.5, 7.5]] * 2)
    short = courses([entry(0, 4)], {"m": "M"})["M"]["reward_teacher"]
    assert (short.steps_T.tolist(), short.values_ST.tolist()) == ([4], [[2.5]])
