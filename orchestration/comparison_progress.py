"""What of a comparison is done already: read from the run folders, nothing else is kept."""

import json
from collections.abc import Sequence
from typing import Any

from configs.errors import ConfigError
from configs.load import load
from configs.run import RunConfig
from orchestration.comparison_runs import PlannedRun

FREE = {"name", "output", "cache", "existing", "monitoring", "resume", "checkpoint", "supervision"}
"""Parts of a configuration that say where a run goes and how it shows itself, not what it is."""


class Progress:
    """Tells which runs succeeded with the very configuration that the plan gives them now."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = runs

    def done(self) -> list[PlannedRun]:
        """Return the runs that need not be made again, in the plan's order."""
        teacher = self.teacher()
        return [run for run in self._runs if _is_done(run, teacher)]

    def teacher(self) -> str | None:
        """Return the folder of the comparison's one teacher; None: no run has made it yet.

        It is the teacher of the first run that made one by the plan's own recipe: a run that
        was handed a teacher cannot tell whether the recipe has changed since.
        """
        makers = (run for run in self._runs if run.shares_teacher)
        return next((_teacher_of(run) for run in makers if _made_by(run, run.config())), None)


def read_summary(run: PlannedRun) -> dict[str, Any]:
    """Return a finished run's `summary.json`."""
    return json.loads((run.folder / "summary.json").read_text())


def _is_done(run: PlannedRun, teacher: str | None) -> bool:
    if _made_by(run, run.config(teacher)):
        return True
    # A run that stood in as the maker of the teacher was not handed it.
    alone = run.shares_teacher and _made_by(run, run.config())
    return alone and _teacher_of(run) == teacher


def _made_by(run: PlannedRun, config: RunConfig) -> bool:
    """Whether the run folder holds a success of ``config``."""
    try:
        status = json.loads((run.folder / "status.json").read_text())
        recorded = load(str(run.folder / "config.yaml"))
    except (OSError, ValueError, ConfigError):
        return False
    return status["state"] == "succeeded" and _identity(recorded) == _identity(config)


def _teacher_of(run: PlannedRun) -> str | None:
    return read_summary(run).get("models", {}).get("teacher")


def _identity(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=FREE)
