"""Quality against policy lag: one line for each value of everything else that methods vary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from configs.overrides import split_override
from orchestration.bootstrap import Interval, bootstrap
from orchestration.comparison_results import TEACHER, WARM_START, Entry
from orchestration.comparison_runs import PlannedRun
from orchestration.figures import GREY, legend_below, look, panels

FROZEN = "frozen"
SCORES = {
    "rouge_l": "Rouge-L, sampled",
    "greedy_rouge_l": "Rouge-L, greedy",
    "nll_nats": "gold NLL, nats per token",
    "reverse_kl_nats": "reverse KL, nats per response",
}
LAG_KEYS = ("replay.max_policy_lag", "negatives.")
"""Overrides that set the lag: all others tell lines apart."""
NAMES = {"objective.lm_weight": "λ", "objective.beta": "β"}


@dataclass(frozen=True)
class LagPoint:
    """One method, as a point of one line."""

    method: str
    lag: int | str
    """Largest age of y_s in learner steps; ``frozen``: always the initial student's."""
    line: str


def lag_points(runs: Sequence[PlannedRun]) -> list[LagPoint]:
    """Return the methods that make lines of two lags or more; empty: the plan varies no lag."""
    points = []
    for run in (run for run in runs if run.seed == runs[0].seed):
        config = run.config()
        if config.learns_from_student:
            lag = FROZEN if config.negatives.type == "initial" else config.lag_bound
            points.append(LagPoint(run.method, lag, _line(run)))
    lags = {line: {p.lag for p in points if p.line == line} for line in {p.line for p in points}}
    return [point for point in points if len(lags[point.line]) > 1]


def plot_lag(points: Sequence[LagPoint], entries: Sequence[Entry]) -> Figure:
    """Draw every score with its 95 % interval; dotted: the warm start and the teacher."""
    lags = sorted({point.lag for point in points}, key=lambda lag: (lag == FROZEN, lag))
    figure, axes = panels(len(SCORES))
    for axis, (score, title) in zip(axes, SCORES.items(), strict=True):
        for index, line in enumerate(dict.fromkeys(point.line for point in points)):
            chosen = [point for point in points if point.line == line]
            _draw_line(axis, chosen, lags, entries, score=score, index=index)
        _draw_references(axis, entries, score)
        axis.set_xticks(range(len(lags)), [str(lag) for lag in lags])
        axis.set(title=title, xlabel="policy lag bound, steps")
        if score == "reverse_kl_nats" and axis.dataLim.ymin > 0:
            # Old y_s that ruin a model raise it tenfold and more.
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_locator(NullLocator())
    legend_below(figure, axes[0])
    return figure


def _draw_line(
    axis: Axes,
    points: Sequence[LagPoint],
    lags: Sequence[Any],
    entries: Sequence[Entry],
    *,
    score: str,
    index: int,
) -> None:
    found = {point.lag: _interval(entries, point.method, score) for point in points}
    known = [(lags.index(lag), interval) for lag in lags if (interval := found.get(lag))]
    if not known:
        return
    places, intervals = zip(*known, strict=True)
    mean, low, high = np.array(intervals).T
    shift = 0.06 * (index - 0.5)  # bars at one lag stand side by side
    axis.errorbar(
        np.array(places) + shift,
        mean,
        yerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)],
        label=points[0].line,
        marker="o",
        markersize=4,
        capsize=3,
        **look(index),  # type: ignore[arg-type]
    )


def _draw_references(axis: Axes, entries: Sequence[Entry], score: str) -> None:
    for method, dash in ((WARM_START, ":"), (TEACHER, (0, (1, 4)))):
        interval = _interval(entries, method, score)
        if interval and (score != "reverse_kl_nats" or method != TEACHER):
            axis.axhline(interval.mean, color=GREY, linestyle=dash, label=method, zorder=1)


def _interval(entries: Sequence[Entry], method: str, score: str) -> Interval | None:
    values = [_values(entry, score) for entry in entries if entry.method == method]
    values = [rows for rows in values if rows and not np.isnan(list(rows.values())).any()]
    return bootstrap(values) if values else None


def _values(entry: Entry, score: str) -> dict[int, float]:
    """Return values by the prompt's row, or the one of the seed where prompts have none."""
    if score == "nll_nats":
        return {0: entry.scores[score]} if score in entry.scores else {}
    values = {prompt.row: getattr(prompt, score) for prompt in entry.prompts}
    return {row: np.nan if value is None else value for row, value in values.items()}


def _line(run: PlannedRun) -> str:
    """Name what the method sets beside its lag."""
    pairs = (split_override(override) for override in run.own)
    rest = [(key, text) for key, text in pairs if not key.startswith(LAG_KEYS)]
    words = [f"{NAMES.get(key, key.split('.')[-1])} = {text}" for key, text in rest]
    return ", ".join(words) or "every method"
