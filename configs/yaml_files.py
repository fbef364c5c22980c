"""YAML files that a user names: by a path, or by the name of one that comes with the project."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError
from configs.yaml_text import describe, parse_yaml


def names_in(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def named_file(kind: str, name: str, folder: Path) -> Path:
    """Return the file of a name in ``folder`` or of a path; ConfigError names the known ones.

    ``kind`` is what the file is, for the message: ``plan``.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            state = "is a folder" if path.is_dir() else "does not exist"
            raise ConfigError(f"{kind} file {path} {state} (looked for {path.absolute()})")
        return path
    names = names_in(folder)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown {kind} {name!r}: {hint}the {kind}s are {', '.join(names) or 'none'}; "
            "a file is given by its path, ending in .yaml"
        )
    return folder / f"{name}.yaml"


def read_mapping(kind: str, path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds; an empty file is an empty one.

    Raises ConfigError, with file and line, for anything else.
    """
    tree = read_yaml(kind, path)
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(
            f"{kind} {path}: a mapping of sections is expected at the top "
            f"(section: {{key: value}}), got {str(tree)[:60]}"
        )
    return tree


def read_yaml(kind: str, path: Path) -> Any:
    """Return what a file holds; ConfigError, with file and line, where that is no YAML."""
    try:
        return parse_yaml(str(path.read_bytes(), "utf-8-sig"))
    except yaml.YAMLError as error:
        line, message = describe(error)
        where = f"{path}, line {line}" if line else str(path)
        raise ConfigError(f"{kind} {where}: not valid YAML: {message}") from None
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ConfigError(
            f"{kind} {path}, line {line}: not UTF-8 (byte 0x{byte:02x}); save it as UTF-8"
        ) from None
    except FileNotFoundError:
        raise ConfigError(f"{kind} {path} does not exist") from None
    except OSError as error:
        raise ConfigError(
            f"{kind} {path} cannot be read ({error.strerror}); see its permissions"
        ) from None
