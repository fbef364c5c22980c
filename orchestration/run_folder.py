"""The run folder: `config.yaml`, `status.json`, `summary.json`, `samples.jsonl` and the rest."""

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

from configs.errors import ConfigError
from configs.load import dump
from configs.run import RunConfig
from orchestration.prompt_scores import SCORES_NAME

STATUS_NAME = "status.json"
TIMES_NAME = "time.json"
State = Literal["running", "succeeded", "stopped", "failed"]
"""What a run says of itself; of one that was killed ``run_state`` says ``crashed``."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, config: RunConfig, *, continues: bool = False) -> None:
        """Make the folder; an earlier run of the name goes on if this one ``continues`` it, and is
        else dealt with as ``existing`` says.

        Raises ``ConfigError`` when it must not be replaced, or cannot be written.
        """
        self.path = run_path(config)
        self._continues = continues
        self.started = time.time()
        self._step = 0
        self.metrics_url: str | None = None
        try:
            self._make(config)
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(
                f"{self.path} cannot be a run folder: a file is in the way; set name or output"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the run folder {self.path} cannot be written ({error.strerror}); "
                "set output=FOLDER to one that you may write"
            ) from None
        self.status("running", step=0)

    def _make(self, config: RunConfig) -> None:
        if (self.path / "config.yaml").exists() and not self._continues:
            if config.existing == "refuse":
                raise ConfigError(
                    f"{self.path} holds an earlier run; set name=ANOTHER or existing=keep"
                )
            if config.existing == "replace":
                shutil.rmtree(self.path)
            else:
                self.path.rename(_free_sibling(self.path))
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.yaml").write_text(dump(config))

    @property
    def student(self) -> Path:
        """The finished student, in Hugging Face layout."""
        return self.path / "student"

    def status(
        self, state: State, *, step: int | None = None, reason: str = "", exit_code: int = 0
    ) -> None:
        """Say how the run stands, for whoever looks from outside; the step stays if not given."""
        self._step = self._step if step is None else step
        write_json(
            self.path / STATUS_NAME,
            {
                "state": state,
                "reason": reason,
                "exit_code": exit_code,
                "step": self._step,
                "metrics_url": self.metrics_url,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "started": self.started,
                "updated": time.time(),
            },
        )

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Write what the run came to."""
        write_json(self.path / "summary.json", summary)

    def dump(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a file for whoever looks into an accident."""
        write_json(self.path / name, value)

    def processes(self, processes: Mapping[str, Any]) -> None:
        """Say where every part runs: `processes.json`, for debuggers and the curious."""
        known = {name: where and where._asdict() for name, where in processes.items()}
        write_json(self.path / "processes.json", known)

    def times(self, times: Mapping[str, Any]) -> None:
        """Say where the roles' seconds went so far: a run that fails leaves no summary."""
        write_json(self.path / TIMES_NAME, times)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append generations of one evaluation."""
        _append(self.path / "samples.jsonl", rows)

    def scores(self, rows: list[dict[str, Any]]) -> None:
        """Append the scores of every prompt of one evaluation."""
        _append(self.path / SCORES_NAME, rows)


def run_path(config: RunConfig) -> Path:
    """Return the absolute folder of the run."""
    return resolve_output(config.output, Path.cwd()) / config.name


def with_places(config: RunConfig, here: Path) -> RunConfig:
    """Return ``config`` with absolute folders, all of which outlive the job.

    ``here`` is the current directory; actors, and who reads the run folder later, have others.
    """
    folder = config.checkpoint.folder
    places = {
        "output": resolve_output(config.output, here),
        "cache": resolve_output(config.cache, here, key="cache"),
        "checkpoint": config.checkpoint.model_copy(
            update={"folder": folder and resolve_output(folder, here, key="checkpoint.folder")}
        ),
    }
    return config.model_copy(update=places)


def resolve_output(output: Path, here: Path, *, key: str = "output") -> Path:
    """Return the absolute folder that ``key`` names; ``here`` is the current directory.

    `ray job submit --working-dir` runs a job in a throw-away copy of the folder it was submitted
    from. There a relative folder is taken below ``~/dpkd`` instead, so that what is in it outlives
    the job; an absolute one inside the copy is a ``ConfigError``.
    """
    output = output.expanduser()
    throw_away = next((up for up in (here, *here.parents) if up.name.startswith("_ray_pkg_")), None)
    if throw_away is None:
        return (here / output).resolve()
    if not output.is_absolute():
        return (Path.home() / "dpkd" / output).resolve()
    if output.resolve().is_relative_to(throw_away.resolve()):
        raise ConfigError(
            f"{key}={output} lies inside the job's throw-away copy of its working directory and "
            f"would vanish with it; give a folder outside, such as {key}=~/{output.name}"
        )
    return output.resolve()


def require_cache(cache: Path) -> None:
    """Raise ``ConfigError`` unless the cache can be written: better now than after training."""
    cache = cache.expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise ConfigError(
            f"the cache folder {cache} cannot be written ({error.strerror}); "
            "set cache=FOLDER to one that you may write"
        ) from None


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _free_sibling(path: Path) -> Path:
    siblings = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(sibling for sibling in siblings if not sibling.exists())


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace ``path`` atomically: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)
