"""How each validation prompt was answered: the lines of `scores.jsonl`."""

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCORES_NAME = "scores.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """One prompt's scores, means over its sampled responses; ``None`` where nothing is known.

    Made by ``Evaluator``; averaged into ``Scores``; written by ``Examiner`` and read by
    `python -m orchestration.compare`, which pairs methods prompt by prompt.
    """

    row: int
    """Zero-based row of the prompt in its data file."""
    rouge_l: float | None = None
    """Sampled at temperature 1, 0 to 100."""
    exact_match: float | None = None
    """Sampled at temperature 1, 0 to 100."""
    greedy_rouge_l: float | None = None
    greedy_exact_match: float | None = None
    reverse_kl_nats: float | None = None
    """Mean of log q(y) - log p(y)."""
    reference_words: int | None = None
    """Words of the gold response, by which length buckets are made."""
    response_tokens: float | None = None
    """Mean length of the sampled responses."""

    def line(self, when: str, step: int) -> dict[str, Any]:
        """Return what `scores.jsonl` says of this prompt; what is not finite becomes null."""
        values = {name: _json_value(value) for name, value in dataclasses.asdict(self).items()}
        return {"when": when, "step": step, **values}


def mean_of(rows: Sequence[PromptScores], score: str) -> float | None:
    """Return the mean of one score over prompts; None unless every prompt has it."""
    values = [getattr(row, score) for row in rows]
    if not values or any(value is None for value in values):
        return None
    return math.fsum(values) / len(values)


def read_scores(folder: Path) -> Mapping[str, list[PromptScores]]:
    """Return a run folder's lines by occasion (``before``, ``after``, ``teacher``, ``step-<n>``).

    Empty where the run has none: it drew no responses.
    """
    path = folder / SCORES_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return by_occasion(json.loads(line) for line in lines)


def by_occasion(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[PromptScores]]:
    """Return what lines of `scores.jsonl` say, by occasion."""
    found: dict[str, list[PromptScores]] = defaultdict(list)
    for values in lines:
        found[values["when"]].append(PromptScores(**_fields(values)))
    return dict(found)


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    known: Iterable[str] = (field.name for field in dataclasses.fields(PromptScores))
    return {name: values[name] for name in known if name in values}


def _json_value(value: float | None) -> float | None:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
