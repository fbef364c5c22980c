"""Writes what a comparison found: `results.csv`, `rows.csv`, `table.md` and the plots."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from configs.plan import PlanConfig
from orchestration.comparison_plots import write_plots
from orchestration.comparison_progress import Progress
from orchestration.comparison_results import (
    Entry,
    length_cuts,
    read_entries,
    results,
    write_results,
    write_rows,
)
from orchestration.comparison_runs import PlannedRun
from orchestration.comparison_table import EXPLANATION, Tables

_NAMED_RUNS = 8
"""Most unfinished runs that a table names."""


def write_report(plan: PlanConfig, runs: Sequence[PlannedRun]) -> Path:
    """Write everything from the runs that are done; returns the path of `table.md`."""
    entries = read_entries(Progress(runs).done())
    table = write_tables(plan, runs, entries)
    write_plots(plan, runs, entries)
    return table


def write_tables(plan: PlanConfig, runs: Sequence[PlannedRun], entries: Sequence[Entry]) -> Path:
    """Write the tables of what was found; returns the path of `table.md`."""
    home = runs[0].home
    home.mkdir(parents=True, exist_ok=True)
    dataset = plan.dataset or plan.name
    cuts = plan.length_cuts or length_cuts(entries)
    lines = results(dataset, entries, cuts)
    write_results(home / "results.csv", lines)
    write_rows(home / "rows.csv", dataset, entries)
    labels = {point.name: point.label for point in plan.points}
    parts = [f"# {dataset}: {plan.name}", *_facts(plan, runs, entries), *_fewer_prompts(runs)]
    parts += _warnings(runs, entries)
    parts += _sections(Tables(labels, entries, lines), cuts, plan.baseline)
    table = home / "table.md"
    table.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return table


def _facts(plan: PlanConfig, runs: Sequence[PlannedRun], entries: Sequence[Entry]) -> list[str]:
    """Say what was compared."""
    learner = runs[0].config().learner
    seeds = ", ".join(map(str, plan.seeds))
    overrides = " ".join(f"`{override}`" for override in plan.overrides)
    sizes = {len(entry.prompts) for entry in entries if entry.prompts}
    prompts = " to ".join(str(size) for size in sorted({min(sizes), max(sizes)})) if sizes else "no"
    return [
        f"Recipe {plan.recipe}{': ' if overrides else ''}{overrides}; {learner.steps} steps of "
        f"{learner.batch_size}; seeds {seeds}; {prompts} validation prompts.",
        _list(
            f"{point.label}: {' '.join(f'`{o}`' for o in point.overrides)}" for point in plan.points
        ),
    ]


def _fewer_prompts(runs: Sequence[PlannedRun]) -> list[str]:
    """Say which methods see fewer prompts in a step, making several pairs of each."""
    configs = {run.label: run.config() for run in runs}
    fewer = [
        f"{label} ({config.learner.batch_size // samples} a step, {samples} pairs of each)"
        for label, config in configs.items()
        if (samples := config.samples_per_prompt) > 1
    ]
    return [f"A step's pairs are each of another prompt, but of {'; '.join(fewer)}."] * bool(fewer)


def _warnings(runs: Sequence[PlannedRun], entries: Sequence[Entry]) -> list[str]:
    """Say what keeps the tables from being the whole comparison."""
    found = {(entry.method, entry.seed) for entry in entries}
    missing = [run.name for run in runs if (run.method, run.seed) not in found]
    warnings = [_unfinished(missing, len(runs))] if missing else []
    if apart := _unequal_starts(entries):
        warnings.append(f"**Not all methods started from one student on seed {apart}.**")
    return warnings


def _unfinished(missing: Sequence[str], count: int) -> str:
    """Say which runs the tables lack; by their number where they are too many to name."""
    if len(missing) <= _NAMED_RUNS:
        return f"**Not done, or failed: {', '.join(missing)}.**"
    return (
        f"**Not done, or failed: {len(missing)} of {count} runs; every mean is over those there.**"
    )


def _sections(tables: Tables, cuts: Sequence[int], baseline: str | None) -> list[str]:
    found = [("Scores", "scores", tables.scores())]
    if baseline is not None:
        title = f"Difference to {tables.labels[baseline]}"
        found.append((title, "differences", tables.differences(baseline)))
    found.append(("Cost", "costs", tables.costs()))
    if cuts:
        names = {"rouge_l": "Rouge-L", "exact_match": "Exact match"}
        for score, name in names.items():
            table = tables.by_length(score, cuts)
            found.append((f"{name} (sampled) by length", "by_length", table))
    found.append(("Course of training", "course", tables.course()))
    return [f"## {title}\n\n{EXPLANATION[kind]}\n\n{table}" for title, kind, table in found]


def _unequal_starts(entries: Sequence[Entry]) -> str:
    """Return the seeds whose runs did not start from the same student."""
    starts: dict[int, set[str]] = {}
    for entry in entries:
        if entry.student is not None:
            starts.setdefault(entry.seed, set()).add(entry.student)
    return ", ".join(str(seed) for seed, folders in starts.items() if len(folders) > 1)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
