"""The figures of a report: each draws one question's answer, of one run or of several at once.

Every function takes runs by name and returns None where no run has what it would show.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestration.figures import COLOURS, DASHES, GREY, legend_below, panels
from orchestration.report_story import Incident
from orchestration.training_curves import REVERSE_KL, REWARD, WINDOW, Curves

Runs = Mapping[str, Curves]
"""By name."""
LEARNING = {
    "implicit reward": (REWARD, "reward_student"),
    "reward margin": ("reward_margin",),
    "reverse KL on y_s, nats/response": ("reverse_kl_k1",),
    "KL of the first token, nats": (REVERSE_KL, "forward_kl_first_token"),
    "loss": ("loss",),
    "gradient norm": ("grad_norm",),
}
"""Panel → the statistics that it shows."""
SCORES = {
    "Rouge-L": ("rouge_l", "greedy_rouge_l"),
    "exact match, per cent": ("exact_match", "greedy_exact_match"),
    "reverse KL, nats/response": ("reverse_kl_nats",),
    "NLL of the references, nats/token": ("nll_nats",),
}
FLOW = {
    "policy lag, steps": ("policy_lag_mean", "policy_lag_max"),
    "tuples in the queue": ("queue_depth", "queue_leased", "queue_stale"),
    "seconds per step": ("seconds",),
    "log-probability drift, nats": ("logprob_drift",),
}
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo")
INCIDENT_COLOURS = {
    "start": COLOURS[2],
    "checkpoint": COLOURS[0],
    "restart": COLOURS[1],
    "drop": COLOURS[3],
    "roll-back": COLOURS[4],
    "end": COLOURS[6],
}


def course(runs: Runs, shown: Mapping[str, Sequence[str]], *, smooth: bool = True) -> Figure | None:
    """Draw statistics step by step: a panel a question, a line a statistic and run.

    ``smooth``: one step's value is noise, and the mean of the last ones is drawn beside it.
    """
    known = {
        title: present
        for title, keys in shown.items()
        if (present := [key for key in keys if any(_has(curves, key) for curves in runs.values())])
    }
    if not known:
        return None
    figure, axes = panels(len(known), columns=2)
    for axis, (title, keys) in zip(axes, known.items(), strict=True):
        _panel(axis, runs, keys, smooth=smooth)
        axis.set(title=title, xlabel="step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(keys) > 1:
            handles = None if len(runs) == 1 else _dashes(keys)
            axis.legend(handles=handles, frameon=False, fontsize="small")
    if len(runs) > 1:
        legend_below(figure, *axes)
    return figure


def _dashes(keys: Sequence[str]) -> list[Line2D]:
    """Return what the dashes of several runs mean; their colours are below the figure."""
    return [
        Line2D([], [], color="black", linestyle=DASHES[index], label=key)
        for index, key in enumerate(keys)
    ]


def _panel(axis: Axes, runs: Runs, keys: Sequence[str], *, smooth: bool) -> None:
    several = len(runs) > 1
    for number, (name, curves) in enumerate(runs.items()):
        present = [key for key in keys if _has(curves, key)]
        for key in present:
            index = keys.index(key)
            # Of several runs the colour is the run's, and the dash the statistic's.
            colour = COLOURS[(number if several else index) % len(COLOURS)]
            label = (name if key == present[0] else None) if several else key
            draw = _line if smooth else _dots
            line = draw(axis, curves["step"], curves[key], colour=colour, label=label)
            line.set_linestyle(DASHES[index] if several else "-")


def _line(
    axis: Axes, steps: np.ndarray, values: np.ndarray, *, colour: str, label: str | None
) -> Line2D:
    """Draw the values faintly and their running mean; mark the steps whose value is no number."""
    few = np.isfinite(values).sum() < 3
    axis.plot(steps, values, linewidth=0.7, alpha=0.35, color=colour)
    (line,) = axis.plot(
        steps, running_mean(values), label=label, marker="o" if few else "", color=colour
    )
    lost = steps[~np.isfinite(values)]
    if len(lost):
        at = axis.get_xaxis_transform()
        (crosses,) = axis.plot(lost, np.zeros(len(lost)), "x", color="red", transform=at)
        crosses.set(clip_on=False, in_layout=False)
    return line


def _dots(
    axis: Axes, steps: np.ndarray, values: np.ndarray, *, colour: str, label: str | None
) -> Line2D:
    known = np.isfinite(values)
    (line,) = axis.plot(steps[known], values[known], marker="o", label=label, color=colour)
    return line


def reward_and_divergence(runs: Runs) -> Figure | None:
    """Draw reward against reverse KL, coloured by step: the path of learning (DPKD, Figure 3)."""
    both = {
        name: curves
        for name, curves in runs.items()
        if _has(curves, REWARD) and _has(curves, REVERSE_KL)
    }
    if not both:
        return None
    figure, axes = panels(len(both), columns=3)
    last = max(curves["step"].max() for curves in both.values())
    for axis, (name, curves) in zip(axes, both.items(), strict=True):
        reward, divergence = (running_mean(curves[key]) for key in (REWARD, REVERSE_KL))
        axis.plot(divergence, reward, color=GREY, linewidth=0.6)
        dots = axis.scatter(
            divergence, reward, c=curves["step"], s=14, cmap="viridis", vmin=0, vmax=last
        )
        axis.set(
            title=name,
            xlabel="KL(q‖p) of the first token, nats",
            ylabel="implicit reward of y_t",
        )
    figure.colorbar(dots, ax=axes, label="step", ticks=MaxNLocator(integer=True))
    return figure


def where_time_went(times: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Draw what each role did and waited for, of summary.json's ``time``."""
    if not times:
        return None
    figure, (axis,) = panels(1)
    figure.set_size_inches(8.8, 1.8 + 0.5 * len(times))
    roles = list(times)[::-1]
    ends = np.zeros(len(roles))
    for kind, what in _kinds_of_time(times):
        seconds = np.array([times[role][kind].get(what, 0.0) for role in roles])
        axis.barh(roles, seconds, left=ends, **_time_look(times, kind, what))
        ends += seconds
    for row, role in enumerate(roles):
        share = times[role]["busy_seconds"] / ends[row] if ends[row] else 0.0
        axis.text(ends[row], row, f" {share:.0%} busy", va="center", fontsize="small")
    axis.set(xlabel="seconds, all replicas together")
    axis.margins(x=0.12)
    legend_below(figure, axis)
    return figure


def _kinds_of_time(times: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what was done, then what was waited for, by any role: the longest first."""
    found: list[tuple[str, str]] = []
    for kind in ("busy", "idle"):
        totals: defaultdict[str, float] = defaultdict(float)
        for account in times.values():
            for what, seconds in account[kind].items():
                totals[what] += seconds
        found += [(kind, what) for what in sorted(totals, key=lambda each: -totals[each])]
    return found


def _time_look(times: Mapping[str, Mapping[str, Any]], kind: str, what: str) -> dict[str, Any]:
    """Return label and look: work has a colour, waiting a shade of grey and a pattern."""
    rank = [each for of, each in _kinds_of_time(times) if of == kind].index(what)
    if kind == "busy":
        return {"label": what.replace("_", " "), "color": COLOURS[rank % len(COLOURS)]}
    label = f"waits for {what.replace('_', ' ')}"
    hatch = HATCHES[rank % len(HATCHES)]
    return {"label": label, "facecolor": "0.93", "edgecolor": "0.6", "hatch": hatch, "lw": 0}


def timeline(incidents: Sequence[Incident]) -> Figure | None:
    """Draw what befell the run, along its seconds."""
    if not incidents:
        return None
    figure, (axis,) = panels(1)
    kinds = [kind for kind in INCIDENT_COLOURS if any(kind == one.kind for one in incidents)]
    figure.set_size_inches(8.8, 1.3 + 0.4 * len(kinds))
    for row, kind in enumerate(kinds):
        seconds = [one.seconds for one in incidents if one.kind == kind]
        axis.scatter(seconds, [row] * len(seconds), color=INCIDENT_COLOURS[kind], s=30)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.set(xlabel="seconds since the run began", ylim=(-0.6, len(kinds) - 0.4))
    return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return at each step the mean of the last ``WINDOW`` values that are numbers.

    NaN where there is none: a hole is shown, and spoils no more than its own step.
    """
    finite = np.isfinite(values)
    sums, counts = (
        np.convolve(part, np.ones(WINDOW))[: len(values)]
        for part in (np.where(finite, values, 0.0), finite.astype(float))
    )
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _has(curves: Curves, key: str) -> bool:
    return key in curves and bool(np.isfinite(curves[key]).any())
