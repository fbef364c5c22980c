"""A small plan, and finished runs of it written by the writers that real runs use."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.plan import PlanConfig
from orchestration.comparison_runs import PlannedRun
from orchestration.metrics_log import MetricsLog
from orchestration.prompt_scores import PromptScores
from orchestration.run_folder import RunFolder

METHODS = {
    "dpkd": {"overrides": ["objective.type=dpkd", "objective.beta=3"]},
    "sft": {"overrides": ["objective.type=sft"]},
}
TEACHER = "/cache/models/teacher-0123"


def plan(home: Path, **changes: Any) -> PlanConfig:
    given = {"name": "small", "methods": METHODS, "seeds": [0, 1], "baseline": "sft"}
    return PlanConfig.model_validate({**given, "output": home / "small", **changes})


def prompts(*rouge: float, words: int = 10) -> list[PromptScores]:
    """Prompts of rows 0, 1, ...; the i-th one's gold response has ``words`` + i words."""
    return [
        PromptScores(
            row=row,
            rouge_l=value,
            exact_match=0.0,
            greedy_rouge_l=value + 5,
            greedy_exact_match=100.0 * (row == 0),
            reverse_kl_nats=value / 10,
            reference_words=words + row,
            response_tokens=12.0,
        )
        for row, value in enumerate(rouge)
    ]


def finish(
    run: PlannedRun,
    *rouge: float,
    before: tuple[float, ...] = (20.0, 30.0),
    teacher: str | None = None,
    state: Any = "succeeded",
    **summary: Any,
) -> None:
    """Write a run folder as a run that took ``teacher`` (or made its own) leaves it."""
    folder = RunFolder(run.config(teacher))
    looks = {"before": prompts(*before), "after": prompts(*rouge)}
    if run.config().evaluation.teacher:
        looks["teacher"] = prompts(60.0, 70.0)
    for when, rows in looks.items():
        folder.scores([row.line(when, 0) for row in rows])
    _write_metrics(folder.path / "metrics.jsonl", level=float(np.mean(rouge)))
    folder.summary(
        {
            "eval": {when: _means(rows) for when, rows in looks.items()},
            "wall_seconds": 90.0,
            "models": {"student": f"/cache/student-{run.seed}", "teacher": teacher or TEACHER},
            "tokens": {"teacher_answered": 400_000, "teacher_judged": 600_000},
            **summary,
        }
    )
    folder.status(state)


def _means(rows: list[PromptScores]) -> dict[str, float]:
    names = ("rouge_l", "greedy_rouge_l", "exact_match", "greedy_exact_match", "reverse_kl_nats")
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return {**means, "nll_nats": 1.5}


def _write_metrics(path: Path, *, level: float) -> None:
    log = MetricsLog(path)
    for step in range(1, 31):
        log.write(
            step=step,
            seconds=2.0,
            reward_teacher=-level / step,
            forward_kl_first_token=level / 10 / step,
            reverse_kl_first_token=level / 20 / step,
        )
    log.close()
