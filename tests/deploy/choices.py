"""What a run must have chosen to go on after a retry, in pods without a way to a hub.

Read from the configuration that the entrypoint makes: by meaning, whoever wrote it.
"""

import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from configs.base import Section
from configs.models import ModelSource
from configs.run import RunConfig
from tests.deploy.mounts import DATA, KEYS

WRITTEN = ("output", "cache", "checkpoint.folder")
KEY_FILE = "teacher.key_file"


def choice_complaints(config: RunConfig) -> list[str]:
    """Return which choices do not fit."""
    return [*_retries(config), *_cluster(config), *_paths(config), *_models(config)]


def _retries(config: RunConfig) -> Iterator[str]:
    if config.resume != "auto":
        yield f"resume={config.resume}: a retry is a new cluster, and does not go on; say auto"
    if config.existing == "replace":
        yield "existing=replace: a run's results would be deleted"


def _cluster(config: RunConfig) -> Iterator[str]:
    cluster = config.cluster
    if cluster.local:
        yield "cluster.local=true: the run would stay in the driver's process, without Ray"
    if cluster.address not in (None, "auto"):
        yield f"cluster.address={cluster.address}: the run leaves the cluster made for it"
    if cluster.auth == "disabled":
        yield "cluster.auth=disabled: whoever reaches Ray's ports runs code"
    if config.monitoring.host != "0.0.0.0":
        yield f"exporters listen on {config.monitoring.host}: no other pod reaches them"


def _paths(config: RunConfig) -> Iterator[str]:
    for key, path in _paths_of(config):
        folders = (DATA, KEYS) if key == KEY_FILE else (DATA,)
        if not any(_below(str(path), folder) for folder in folders):
            lost = "it goes with the pod" if key in WRITTEN else "no pod has it"
            yield f"{key}={path} is not below {' or '.join(folders)}: {lost}"


def _paths_of(section: Section, above: str = "") -> Iterator[tuple[str, Path]]:
    """Every path of a configuration by its key."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _paths_of(value, f"{above}{name}.")
        elif isinstance(value, Path):
            yield f"{above}{name}", value


def _models(config: RunConfig) -> Iterator[str]:
    for role, source in (("student", config.student), ("teacher", config.teacher)):
        model = source.model if isinstance(source, ModelSource) else None
        if model is not None and not _below(model, DATA):
            yield f"{role}.model={model} is not below {DATA}, and a hub is out of the pods' reach"


def _below(path: str, folder: str) -> bool:
    return PurePosixPath(posixpath.normpath(path)).is_relative_to(folder)
