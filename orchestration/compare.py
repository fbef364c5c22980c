"""The entry: `python -m orchestration.compare PLAN`: methods times seeds, tables and plots."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DpkdError
from configs.load_plan import load_plan, plan_names
from configs.plan import PlanConfig
from orchestration.comparison_progress import Progress
from orchestration.comparison_runs import PlannedRun, planned_runs
from orchestration.comparison_schedule import Schedule, child_environment
from orchestration.noise_study import run_noise_study
from orchestration.processes import Processes
from orchestration.say import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a plan; returns the process's exit code (1: a run failed, 130/143: a signal, else as
    `python -m orchestration.run`).
    """
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        plan = load_plan(options.plan)
        runs = _planned(options.plan, plan)
        if options.table:
            _refuse_nothing(runs)
        if not options.dry_run:
            _make_folder(runs[0].home)
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    if options.dry_run:
        _list(runs)
        return 0
    code = 0 if options.table else asyncio.run(_run(plan, runs))
    if not Progress(runs).done():
        say("no run is done: tables and plots are left as they were")
        return code
    from orchestration.comparison_report import write_report  # brings matplotlib

    say(f"table: {write_report(plan, runs)}")
    return code


def _planned(path: str, plan: PlanConfig) -> list[PlannedRun]:
    try:
        return planned_runs(plan)
    except ConfigError as error:
        raise ConfigError(f"plan {path}: {error}") from None


def _refuse_nothing(runs: list[PlannedRun]) -> None:
    """Refuse to write tables of no run at all over those that may be there."""
    progress = Progress(runs)
    if not progress.done():
        raise ConfigError(
            f"none of the plan's {len(runs)} runs is done in {runs[0].home}, so no table is "
            f"written: {progress.obstacle()}; run the plan without --table, or set its output to "
            "the folder of the runs that you mean"
        )


async def _run(plan: PlanConfig, runs: list[PlannedRun]) -> int:
    """Make what is missing; returns the exit code."""
    say(f"{plan.name}: {_count(runs)}; {plan.parallel} at a time; folder {runs[0].home}")
    with Processes(child_environment(plan)) as processes:
        schedule = Schedule(plan, runs, say)
        await schedule.run(processes)
        well = not schedule.failed
        if plan.noise:
            done = Progress(runs).done()
            well &= await run_noise_study(plan.noise, done, processes, say)
    if processes.signal:
        say(f"{processes.signal.name}: stopped; the same command goes on from here")
        return 128 + processes.signal
    return 0 if well else 1


def _list(runs: list[PlannedRun]) -> None:
    """Print every run, whether it is done, and what it is made of."""
    done = Progress(runs).done()
    for run in runs:
        say(f"{'done  ' if run in done else 'to run'}  {run.name}  {' '.join(run.own)}")
    say(_count(runs))


def _make_folder(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {home} cannot be written ({error.strerror}); set the plan's output to one "
            "that you may write"
        ) from None


def _count(runs: list[PlannedRun]) -> str:
    return f"{len(runs)} runs, {len(Progress(runs).done())} of them done"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.compare",
        description="Run methods times seeds with equal budgets; a half-done plan is resumed.",
        epilog=f"plans: {', '.join(plan_names())}; how to write one: docs/compare.md",
    )
    parser.add_argument("plan", help="a plan's name or a YAML file")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="list the runs and what is done")
    how.add_argument(
        "--table", action="store_true", help="write tables and plots from what is done, run nothing"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
