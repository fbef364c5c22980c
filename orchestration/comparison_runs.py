"""The runs of a comparison: every method on every seed, each a command of its own."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.grid import GridPoint
from configs.load import load
from configs.overrides import split_override
from configs.plan import PlanConfig
from configs.run import RunConfig
from orchestration.run_folder import resolve_output

OWN_KEYS = {
    "seed": "list the seeds under seeds",
    "name": "runs are named by their method and seed",
    "output": "set the plan's output",
    "existing": "a run is replaced when it is not done",
}
"""Keys that a comparison sets itself, and what to do instead."""
WARM_START = {"warmup_steps", "min_learning_rate_ratio", "weight_decay", "adam_betas"} | {
    "max_grad_norm",
    "dtype",
}
"""Settings of the learner that also determine the student that distillation starts from."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One method on one seed."""

    method: str
    label: str
    seed: int
    recipe: str
    own: tuple[str, ...]
    """The overrides of the method alone."""
    overrides: tuple[str, ...]
    """Everything but the teacher that is shared."""
    home: Path
    """The comparison's folder, absolute."""
    shares_teacher: bool
    """Whether it takes the comparison's one made teacher, once there is one."""

    @property
    def name(self) -> str:
        """Name of the run folder and the log."""
        return f"{self.method}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.home / "runs" / self.name

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.home / "logs" / f"{self.name}.log"

    def arguments(self, teacher: str | None = None) -> list[str]:
        """Return the arguments of `python -m orchestration.run`.

        ``teacher`` is the folder of the comparison's one teacher; None: the run makes its own,
        or loads the one that its recipe names.
        """
        given = ["teacher.make=null", "teacher.warm_start=null"]
        shared = [f"teacher.model={teacher}", *given] if teacher and self.shares_teacher else []
        return [self.recipe, *self.overrides, *shared]

    def command(self, teacher: str | None = None) -> list[str]:
        """Return the command that makes this run."""
        return [sys.executable, "-m", "orchestration.run", *self.arguments(teacher)]

    def config(self, teacher: str | None = None) -> RunConfig:
        """Return the configuration that ``command`` resolves to."""
        recipe, *overrides = self.arguments(teacher)
        return _resolved(recipe, tuple(overrides))


def planned_runs(plan: PlanConfig) -> list[PlannedRun]:
    """Return a plan's runs in the order in which they start: all methods of a seed, seed by seed.

    Raises ConfigError, naming the method or the plan's own key, for what no run would accept, and
    for methods of unequal budgets unless the plan allows them.
    """
    _refuse_own_keys("overrides", plan.overrides)
    points = plan.points
    runs = [
        _planned(plan, point, seed, first=point == points[0])
        for seed in plan.seeds
        for point in points
    ]
    if plan.equal_budget:
        _check_budgets(runs[: len(points)])
    return runs


def _planned(plan: PlanConfig, point: GridPoint, seed: int, *, first: bool) -> PlannedRun:
    _refuse_own_keys(f"method {point.name}", point.overrides)
    home = resolve_output(plan.folder, Path.cwd())
    overrides = (
        *("monitoring.port=0", f"cluster.local={str(plan.local).lower()}"),
        *(*plan.overrides, *point.overrides),
        # What the teacher scores does not depend on the method: one run a seed measures it.
        *(() if first else ("evaluation.teacher=false",)),
        *(f"seed={seed}", f"name={point.name}-seed{seed}", f"output={home / 'runs'}"),
        "existing=replace",
    )
    try:
        config = _resolved(plan.recipe, overrides)
    except ConfigError as error:
        raise ConfigError(f"{_culprit(plan, point, error)}: {error}") from None
    made = getattr(config.teacher, "warm_start", None) is not None
    return PlannedRun(
        method=point.name,
        label=point.label,
        seed=seed,
        recipe=plan.recipe,
        own=point.overrides,
        overrides=overrides,
        home=home,
        shares_teacher=plan.share_teacher and config.uses_teacher and made,
    )


def _culprit(plan: PlanConfig, point: GridPoint, error: ConfigError) -> str:
    """Name the part of the plan that is wrong: the first that alone gives the same error."""
    for part, overrides in (("recipe", ()), ("overrides", plan.overrides)):
        try:
            _resolved(plan.recipe, overrides)
        except ConfigError as alone:
            if str(alone) == str(error):
                return part
    return f"method {point.name}"


@cache
def _resolved(recipe: str, overrides: tuple[str, ...]) -> RunConfig:
    return load(recipe, overrides)


def _refuse_own_keys(where: str, overrides: tuple[str, ...]) -> None:
    for override in overrides:
        try:
            key, _ = split_override(override)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if key in OWN_KEYS:
            raise ConfigError(f"{where}: {override!r} is not the plan's to set: {OWN_KEYS[key]}")


def _check_budgets(runs: list[PlannedRun]) -> None:
    """Refuse methods that are given more, or other, than the first one."""
    first, *others = runs
    expected = _budget(first.config())
    for run in others:
        found = _budget(run.config())
        for key in expected:
            if found[key] != expected[key]:
                raise ConfigError(
                    f"method {run.method} has {key} {found[key]} where {first.method} has "
                    f"{expected[key]}: methods are compared at equal budgets; set it in the "
                    "plan's overrides for all of them, or equal_budget: false"
                )


def _budget(config: RunConfig) -> Mapping[str, Any]:
    """Return what every method must have alike, by dotted key."""
    sections = {
        "learner": {"steps", "batch_size"} | WARM_START,
        "student": {"model", "make", "warm_start"},
        "evaluation": set(type(config.evaluation).model_fields) - {"teacher"},
        "data": set(type(config.data).model_fields),
    }
    return {
        f"{section}.{key}": getattr(getattr(config, section), key)
        for section, keys in sections.items()
        for key in sorted(keys)
    }
