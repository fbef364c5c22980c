"""Experiment trackers: TensorBoard, Weights & Biases, trackio. Optional, and never in the way.

A tracker hears what `metrics.jsonl` hears, as ``train/<statistic>``, and every evaluation, as
``<model>/<score>``. One that fails is told nothing more, and the run goes on.
"""

import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from configs.errors import DependencyError
from configs.monitoring import TrackerName
from configs.run import RunConfig
from orchestration.run_folder import write_json

IDENTITY_NAME = "tracking.json"
_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes numbers of one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of ``step``; a run that goes back to a checkpoint repeats steps."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


class Identity(NamedTuple):
    """What a tracker knows a run by, kept in its folder: another run in its place has another."""

    key: str
    goes_on: bool
    """Whether the run was known before."""

    @classmethod
    def of(cls, folder: Path) -> "Identity":
        """Return the run's, or give it one."""
        path = folder / IDENTITY_NAME
        if path.exists():
            return cls(json.loads(path.read_text())["key"], goes_on=True)
        key = secrets.token_hex(6)
        write_json(path, {"key": key})
        return cls(key, goes_on=False)


class TensorBoard:
    """Event files in `RUN/tensorboard`; steps that are made again take the place of the first."""

    def __init__(self, config: RunConfig, folder: Path, identity: Identity) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = str(folder / "tensorboard")
        self._open: Callable[..., Any] = SummaryWriter
        self._writer: Any = None
        self._step = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        if self._writer is None or step < self._step:
            self.close()
            self._writer = self._open(self._folder, purge_step=step)
        self._step = step
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """See ``Tracker.close``."""
        if self._writer is not None:
            self._writer.close()


class Wandb:
    """A W&B run in `RUN/wandb`; of a step that is made again W&B keeps the first."""

    def __init__(self, config: RunConfig, folder: Path, identity: Identity) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        tracking = config.monitoring.tracking
        self._run = wandb.init(
            project=tracking.project,
            name=config.name,
            id=identity.key,
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

    def __init__(self, config: RunConfig, folder: Path, identity: Identity) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(
            project=config.monitoring.tracking.project,
            name=f"{config.name}-{identity.key}",  # a name is all that it knows a run by
            config=config.model_dump(mode="json"),
            resume="allow" if identity.goes_on else "never",
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


_MAKERS: Mapping[TrackerName, Callable[[RunConfig, Path, Identity], Tracker]] = {
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
        """Tell of a step; one that is made again after a roll-back may be lower than the last."""
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
    if not config.monitoring.tracking.to:
        return Trackers(opened, announce)
    identity = Identity.of(folder)
    for name in config.monitoring.tracking.to:
        try:
            opened[name] = _MAKERS[name](config, folder, identity)
        except Exception as error:
            Trackers(opened, announce).close()
            raise DependencyError(
                f"monitoring.tracking.to names {name}, which did not start ({error}); "
                "mend that, or leave it out"
            ) from error
    return Trackers(opened, announce)
