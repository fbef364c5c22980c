"""What of a comparison is done already: read from the run folders, nothing else is kept."""

import json
from collections.abc import Mapping, Sequence
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

    def obstacle(self) -> str:
        """Say why no run is done: the first setting in which a finished one differs, if any did."""
        finished = [(run, found) for run in self._runs if (found := _recorded(run)) is not None]
        for run, recorded in finished:
            expected = run.config(_handed(run, recorded))
            if changed := _first_difference(_identity(recorded), _identity(expected)):
                key, found, wanted = changed
                return f"{run.name} there was made with {key}={found}, the plan says {wanted}"
        if not finished:
            return "no run there has succeeded"
        run, recorded = finished[0]
        teacher = _handed(run, recorded)
        return (
            f"{run.name} there was handed the teacher {teacher}, and the run that made it is gone"
        )


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
    recorded = _recorded(run)
    return recorded is not None and _identity(recorded) == _identity(config)


def _recorded(run: PlannedRun) -> RunConfig | None:
    """Return the configuration that the run folder holds a success of, whole enough to read."""
    try:
        status = json.loads((run.folder / "status.json").read_text())
        summary = read_summary(run)
        recorded = load(str(run.folder / "config.yaml"))
    except (OSError, ValueError, ConfigError):
        return None
    if not isinstance(status, dict) or status.get("state") != "succeeded":
        return None
    whole = isinstance(summary, dict) and summary.keys() >= {"eval", "wall_seconds"}
    return recorded if whole else None


def _teacher_of(run: PlannedRun) -> str | None:
    return read_summary(run).get("models", {}).get("teacher")


def _identity(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=FREE)


def _handed(run: PlannedRun, recorded: RunConfig) -> str | None:
    """Return the teacher that a recorded run was handed; None: it made its own, or shares none."""
    source = recorded.teacher
    made = getattr(source, "make", None) is not None or getattr(source, "warm_start", None)
    return None if made or not run.shares_teacher else getattr(source, "model", None)


def _first_difference(
    found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> tuple[str, Any, Any] | None:
    """Return the first dotted key in which two trees differ, with both values; None: in none."""
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        here, there = found.get(key), wanted.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            if below := _first_difference(here, there, f"{prefix}{key}."):
                return below
        elif here != there:
            return f"{prefix}{key}", here, there
    return None
