"""The file that costs are kept in: read, and replaced only by costs that were found."""

import json
from pathlib import Path

from configs.errors import ConfigError
from configs.yaml_files import read_yaml
from orchestration.costs import Costs


def read_costs(path: Path) -> Costs:
    """Return the costs of a JSON or YAML file; ConfigError, one sentence, where it holds none."""
    given = read_yaml("--costs", path)
    if not isinstance(given, dict):
        raise ConfigError(f"--costs {path} holds no mapping of names to seconds")
    try:
        return Costs.from_dict(given)
    except ConfigError as error:
        raise ConfigError(f"--costs {path}: {error}") from None


def check_place(path: Path) -> None:
    """Raise ConfigError where costs could not be kept in ``path``; leaves what is there."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"--save {path} is no file to be replaced: name another")
    try:
        _draft_of(path).touch()
        _draft_of(path).unlink()
    except OSError as error:
        raise _not_written(path, error) from None


def write_costs(path: Path, costs: Costs) -> None:
    """Put costs in the place of what the file held, at once and whole."""
    draft = _draft_of(path)
    try:
        draft.write_text(json.dumps(costs.as_dict(), indent=1) + "\n", encoding="utf-8")
        draft.replace(path.resolve())
    except OSError as error:
        raise _not_written(path, error) from None


def _draft_of(path: Path) -> Path:
    """Return a place beside the file, or beside what it is a link to."""
    return path.resolve().with_name(f".{path.resolve().name}.tmp")


def _not_written(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--save {path} cannot be written ({error.strerror})")
