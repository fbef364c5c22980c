"""Every figure of a comparison, as PNG and SVG."""

from collections.abc import Sequence

from configs.plan import PlanConfig
from orchestration.comparison_results import Entry
from orchestration.comparison_runs import PlannedRun
from orchestration.course_plots import courses, plot_curves, plot_reward_and_divergence
from orchestration.figures import save
from orchestration.lag_plot import lag_points, plot_lag
from orchestration.noise_plot import plot_noise
from orchestration.noise_study import read_noise


def write_plots(plan: PlanConfig, runs: Sequence[PlannedRun], entries: Sequence[Entry]) -> None:
    """Write into the comparison's ``plots`` the figures that there are numbers for."""
    folder = runs[0].home / "plots"
    if entries and (points := lag_points(runs)):
        save(plot_lag(points, entries), folder, "lag")
    if found := courses(entries, {run.method: run.label for run in runs}):
        save(plot_curves(found), folder, "curves")
        if figure := plot_reward_and_divergence(found):
            save(figure, folder, "reward_divergence")
    if plan.noise and (measured := read_noise(plan.noise, runs)):
        save(plot_noise(measured), folder, "noise")
