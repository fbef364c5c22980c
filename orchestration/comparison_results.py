"""Everything that finished runs found, as one long table, and prompt by prompt."""

import csv
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orchestration.comparison_progress import read_summary
from orchestration.comparison_runs import PlannedRun
from orchestration.length_buckets import cuts_of, in_buckets
from orchestration.prompt_scores import PromptScores, mean_of, read_scores
from orchestration.training_curves import Curves, extremes, read_curves

WARM_START, TEACHER = "warm start", "teacher"
"""Rows beside the methods: the student before its first step, and the teacher."""


class Result(NamedTuple):
    """One line of `results.csv`."""

    dataset: str
    method: str
    seed: int
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was found of one method, or other row of the tables, on one seed."""

    method: str
    seed: int
    scores: dict[str, float]
    """An evaluation's scores; of a method also what its run took, and its course's extremes."""
    prompts: list[PromptScores]
    curves: Curves
    student: str | None = None
    """Folder of the student that the run started from, where it says so."""


def read_entries(runs: Sequence[PlannedRun]) -> list[Entry]:
    """Return what finished runs found: of each seed its warm start, its methods, its teacher."""
    entries = []
    for seed in dict.fromkeys(run.seed for run in runs):
        read = [_Read.of(run) for run in runs if run.seed == seed]
        warm = (each.entry(WARM_START, "before") for each in read if "before" in each.evaluations)
        teacher = (each.entry(TEACHER, "teacher") for each in read if "teacher" in each.evaluations)
        # Every run looks at the same warm start: the first one's view of it stands for all.
        entries += [*_first(warm), *(each.finished() for each in read), *_first(teacher)]
    return entries


def length_cuts(entries: Sequence[Entry]) -> tuple[int, ...]:
    """Return median and mean of the gold lengths of all seeds' prompts; empty: none is known."""
    lengths = {
        (entry.seed, prompt.row): prompt.reference_words
        for entry in entries
        for prompt in entry.prompts
        if prompt.reference_words is not None
    }
    return cuts_of(list(lengths.values())) if lengths else ()


def results(dataset: str, entries: Sequence[Entry], cuts: Sequence[int]) -> list[Result]:
    """Return one line for every number; length buckets count from 0."""
    return [
        Result(dataset, entry.method, entry.seed, metric, value)
        for entry in entries
        for metric, value in {**entry.scores, **_by_length(entry, cuts)}.items()
    ]


def write_results(path: Path, lines: Iterable[Result]) -> None:
    """Write `results.csv`."""
    _write(path, Result._fields, lines)


def write_rows(path: Path, dataset: str, entries: Sequence[Entry]) -> None:
    """Write `rows.csv`: every prompt's scores, what intervals are made of."""
    names = [field.name for field in dataclasses.fields(PromptScores)]
    _write(
        path,
        ["dataset", "method", "seed", *names],
        (
            [dataset, entry.method, entry.seed, *(getattr(prompt, name) for name in names)]
            for entry in entries
            for prompt in entry.prompts
        ),
    )


@dataclass(frozen=True)
class _Read:
    """One run's files."""

    run: PlannedRun
    summary: dict[str, Any]
    prompts: dict[str, list[PromptScores]]
    curves: Curves

    @classmethod
    def of(cls, run: PlannedRun) -> "_Read":
        scores = dict(read_scores(run.folder))
        return cls(run, read_summary(run), scores, read_curves(run.folder))

    @property
    def evaluations(self) -> dict[str, dict[str, float]]:
        return self.summary["eval"]

    def entry(self, method: str, when: str) -> Entry:
        return Entry(
            method=method,
            seed=self.run.seed,
            scores=dict(self.evaluations.get(when, {})),
            prompts=self.prompts.get(when, []),
            curves={},
        )

    def finished(self) -> Entry:
        entry = self.entry(self.run.method, "after")
        return dataclasses.replace(
            entry,
            scores={**entry.scores, **self._costs(), **extremes(self.curves)},
            curves=self.curves,
            student=self.summary.get("models", {}).get("student"),
        )

    def _costs(self) -> dict[str, float]:
        costs = {"wall_seconds": self.summary["wall_seconds"]}
        if "seconds" in self.curves:
            costs["seconds_per_step"] = round(float(self.curves["seconds"].mean()), 4)
        tokens = self.summary.get("tokens") or {}
        if {"teacher_answered", "teacher_judged"} <= set(tokens):
            costs["teacher_tokens"] = tokens["teacher_answered"] + tokens["teacher_judged"]
        return costs


def _by_length(entry: Entry, cuts: Sequence[int]) -> dict[str, float]:
    if not cuts:
        return {}
    return {
        f"{score}_bucket_{number}": round(mean, 4)
        for number, bucket in enumerate(in_buckets(entry.prompts, cuts))
        for score in ("rouge_l", "exact_match")
        if (mean := mean_of(bucket, score)) is not None
    }


def _first(entries: Iterable[Entry]) -> list[Entry]:
    found = next(iter(entries), None)
    return [] if found is None else [found]


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
