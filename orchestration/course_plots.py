"""How reward and divergence move while methods learn (DPKD, Figures 3 and 4)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestration.comparison_results import Entry
from orchestration.figures import legend_below, look, panels
from orchestration.training_curves import FORWARD_KL, REVERSE_KL, REWARD, smoothed

TITLES = {
    REWARD: "implicit reward of y_t",
    FORWARD_KL: "KL(p‖q) of the first token, nats",
    REVERSE_KL: "KL(q‖p) of the first token, nats",
}


class Trace(NamedTuple):
    """One statistic of a method, smoothed."""

    steps_T: np.ndarray
    """Last step of each point's window."""
    values_ST: np.ndarray
    """One row a seed."""


Course = Mapping[str, Trace]
"""By statistic."""


def courses(entries: Sequence[Entry], labels: Mapping[str, str]) -> dict[str, Course]:
    """Return by label what each method's seeds logged; methods that logged none are left out."""
    found: dict[str, Course] = {}
    for method, label in labels.items():
        mine = [entry.curves for entry in entries if entry.method == method]
        course = {key: _trace([c[key] for c in mine if key in c]) for key in TITLES}
        if known := {key: trace for key, trace in course.items() if trace is not None}:
            found[label] = known
    return found


def plot_curves(found: Mapping[str, Course]) -> Figure:
    """Draw mean and standard deviation over seeds of each statistic, step by step (Figure 4)."""
    keys = [key for key in TITLES if any(key in course for course in found.values())]
    figure, axes = panels(len(keys))
    for axis, key in zip(axes, keys, strict=True):
        for index, (label, course) in enumerate(found.items()):
            if key not in course:
                continue
            steps, values = course[key]
            mean, spread = values.mean(axis=0), values.std(axis=0)
            axis.plot(steps, mean, label=label, **look(index))  # type: ignore[arg-type]
            axis.fill_between(
                steps, mean - spread, mean + spread, color=look(index)["color"], alpha=0.15
            )
        axis.set(title=TITLES[key], xlabel="step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    fullest = max(axes, key=lambda axis: len(axis.get_lines()))
    legend_below(figure, fullest)
    return figure


def plot_reward_and_divergence(found: Mapping[str, Course]) -> Figure | None:
    """Draw reward against reverse KL, coloured by step, a panel for each method (Figure 3).

    None where no method has both.
    """
    both = {label: c for label, c in found.items() if {REWARD, REVERSE_KL} <= set(c)}
    if not both:
        return None
    figure, axes = panels(len(both), columns=4)
    last = max(course[REWARD].steps_T[-1] for course in both.values())
    for axis, (label, course) in zip(axes, both.items(), strict=True):
        reward, divergence = (course[key].values_ST.mean(axis=0) for key in (REWARD, REVERSE_KL))
        steps = course[REWARD].steps_T
        dots = axis.scatter(divergence, reward, c=steps, s=10, cmap="viridis", vmin=0, vmax=last)
        axis.set(title=label, xlabel=TITLES[REVERSE_KL], ylabel=TITLES[REWARD])
    figure.colorbar(dots, ax=axes, label="step", aspect=30, ticks=MaxNLocator(integer=True))
    return figure


def _trace(curves: Sequence[np.ndarray]) -> Trace | None:
    """Return smoothed curves as rows, all as short as the shortest; None for no curve."""
    shortest = min((len(curve) for curve in curves), default=0)
    if not shortest:
        return None
    values = np.stack([smoothed(curve[:shortest]) for curve in curves])
    return Trace(np.arange(shortest - values.shape[1], shortest) + 1, values)
