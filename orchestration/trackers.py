"""Experiment trackers: TensorBoard, Weights & Biases, trackio. Optional, and never in the way.

A tracker hears what `metrics.jsonl` hears, as ``train/<statistic>``, and every evaluation, as
``<model>/<score>``. One that fails is told nothing more, and the run goes on.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from configs.errors import DependencyError
from configs.monitoring import TrackerName
from configs.run import RunConfig

_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes numbers of one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of ``step``; steps never fall."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


class TensorBoard:
    """Event files in `RUN/tensorboard`; what was logged behind the first step is replaced."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder / "tensorboard"
        self._open: Callable[..., Any] = SummaryWriter
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        if self._writer is None:  # only now is it known which steps are replaced
            self._writer = self._open(str(self._folder), purge_step=step)
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """See ``Tracker.close``."""
        if self._writer is not None:
            self._writer.close()


class Wandb:
    """A W&B run in `RUN/wandb`; a run that goes on keeps its id."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        tracking = config.monitoring.tracking
        self._run = wandb.init(
            project=tracking.project,
            name=config.name,
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:12],
            resume="allow",
            dir=str(folder),
            mode=tracking.wandb_mode,
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See ``Tracker.close``."""
        self._run.finish()


class Trackio:
    """A run of trackio's local project, for `trackio show --project PROJECT`."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(
            project=config.monitoring.tracking.project,
            name=config.name,
            config=config.model_dump(mode="json"),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        """See ``Tracker.close``."""
        self._trackio.finish()


_MAKERS: Mapping[TrackerName, Callable[[RunConfig, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


class Trackers:
    """All trackers of a run; empty: none was asked for."""

    def __init__(self, trackers: Mapping[str, Tracker], announce: Callable[[str], None]) -> None:
        self._trackers = dict(trackers)
        self._announce = announce
        self._step = 0

    def stepped(self, step: int, values: Mapping[str, float]) -> None:
        """Tell of a step."""
        self._step = step
        self._tell({f"train/{key}": value for key, value in values.items()})

    def evaluated(self, model: str, step: int, scores: Mapping[str, float]) -> None:
        """Tell of an evaluation of ``model``: the student, or the teacher."""
        self._step = max(step, self._step)
        self._tell({f"{model}/{score}": value for score, value in scores.items()})

    def close(self) -> None:
        """Let every tracker finish; may be called twice."""
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.close())
        self._trackers.clear()

    def _tell(self, values: Mapping[str, float]) -> None:
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.log(self._step, values))

    def _try(self, name: str, work: Callable[[Tracker], None]) -> None:
        try:
            work(self._trackers[name])
        except Exception as error:  # noqa: BLE001  whatever a library may raise
            del self._trackers[name]
            _LOG.warning("%s failed", name, exc_info=True)
            self._announce(f"{name} failed and is told nothing more: {error}")


def require_trackers(config: RunConfig) -> None:
    """Raise DependencyError where a tracker is asked for that is not installed."""
    missing = [name for name in config.monitoring.tracking.to if find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"monitoring.tracking.to names {', '.join(missing)}, which this Python lacks; "
            f"pip install {' '.join(missing)}, or leave it out"
        )


def open_trackers(config: RunConfig, folder: Path, announce: Callable[[str], None]) -> Trackers:
    """Open what the recipe asks for.

    Raises DependencyError where one is missing or does not start, such as W&B without a login.
    """
    require_trackers(config)
    opened: dict[str, Tracker] = {}
    for name in config.monitoring.tracking.to:
        try:
            opened[name] = _MAKERS[name](config, folder)
        except Exception as error:
            Trackers(opened, announce).close()
            raise DependencyError(
                f"monitoring.tracking.to names {name}, which did not start ({error}); "
                "mend that, or leave it out"
            ) from error
    return Trackers(opened, announce)
