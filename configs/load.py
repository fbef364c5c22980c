"""From a recipe and overrides to a checked RunConfig, and back to YAML.

A recipe is a YAML file that says what differs from the defaults. An override is
``dotted.key=value``; the value is YAML, except where the key takes only text. Imports nothing
heavy: a mistake in a config is answered in a fraction of a second.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError

from configs.base import Section
from configs.complaints import complaint
from configs.errors import ConfigError
from configs.keys import known_keys, misplaced_switch, nearest_key, slots, unknown_key
from configs.overrides import Tree, set_key, split_override
from configs.run import RunConfig
from configs.yaml_text import describe, parse_yaml, write_yaml

RECIPES = Path(__file__).parent / "recipes"
"""Folder of the recipes that can be named without a path."""
DEFAULT_RECIPE = "quickstart"


def load(recipe: str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the config of a recipe with overrides applied, in their order.

    ``recipe`` is a name in ``configs/recipes`` or a path; None is the quickstart. ``~`` is
    expanded; other relative paths are relative to the current directory.
    Raises ConfigError, one line, for anything that is wrong with either.
    """
    path = recipe_path(recipe or DEFAULT_RECIPE)
    tree = _read(path)
    given: dict[str, str] = {}
    # Types first: what a type changes is the recipe's section, not the other overrides.
    split = [(*split_override(override), override) for override in overrides]
    for key, text, override in sorted(split, key=lambda each: not each[0].endswith(".type")):
        set_key(tree, key, text)
        given[key] = override
    wrong = unknown_key(tree, RunConfig)
    if wrong is not None:
        # An override is quoted with its whole key, whichever part of it is wrong.
        wrong = next((key for key in given if key.startswith(f"{wrong}.")), wrong)
        raise ConfigError(_unknown(wrong, _origin(wrong, given, path)))
    switch = misplaced_switch(tree, RunConfig)
    if switch is not None:
        where = _origin(switch, given, path)
        raise ConfigError(f"{switch}: a number is expected, got true or false ({where})")
    _name_types(tree, RunConfig)
    try:
        return cast(RunConfig, _expanded(RunConfig.model_validate(tree)))
    except ValidationError as error:
        key, message = complaint(error, RunConfig)
        where = f" ({_origin(key, given, path)})" if key else ""
        raise ConfigError(" ".join(f"{message}{where}".split())) from None


def dump(config: RunConfig) -> str:
    """Return the whole config, defaults included, as YAML; ``load`` reads it back, equal."""
    return write_yaml(config.model_dump(mode="json"))


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(recipe: str) -> Path:
    """Return the file of a recipe name or path; ConfigError names the known ones."""
    path = Path(recipe).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise ConfigError(f"recipe file {path} does not exist (looked for {path.absolute()})")
        return path
    names = recipe_names()
    if recipe not in names:
        near = get_close_matches(recipe, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown recipe {recipe!r}: {hint}the recipes are {', '.join(names) or 'none'}; "
            "a file is given by its path, ending in .yaml"
        )
    return RECIPES / f"{recipe}.yaml"


def _read(path: Path) -> Tree:
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        line, message = describe(error)
        where = f"{path}, line {line}" if line else str(path)
        raise ConfigError(f"recipe {where}: not valid YAML: {message}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"recipe {path}: a mapping of sections is expected at the top")
    return tree


def _name_types(tree: Tree, section: type[BaseModel]) -> None:
    """Write the default ``type`` into mappings of a union that name none."""
    for name, slot in slots(section).items():
        value = tree.get(name)
        if not isinstance(value, dict):
            continue
        if len(slot.sections) > 1:
            value.setdefault("type", slot.default.type)
        below = slot.section(value)
        if below is not None:
            _name_types(value, below)


def _home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(f"path {path}: whose home folder is meant? Write the path out") from None


def _unknown(key: str, origin: str) -> str:
    if key in known_keys(RunConfig):
        section = key.rpartition(".")[0]
        return f"key {key!r} {origin} does not belong to this {section}.type: leave it out"
    near = nearest_key(key, RunConfig)
    return f"unknown key {key!r} {origin}: the nearest known key is {near!r}"


def _origin(key: str, given: dict[str, str], path: Path) -> str:
    """Say where a key's value came from: the latest override at, above or below it, or a file."""
    for name in reversed(given):
        if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}."):
            return f"in override {given[name]!r}"
    return f"in recipe {path}"


def _expanded(section: Section) -> Section:
    """Expand ``~`` in every path and model folder."""
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            changes[name] = _expanded(value)
        elif isinstance(value, Path):
            changes[name] = _home(value)
        elif name == "model" and isinstance(value, str):
            changes[name] = str(_home(Path(value))) if value[:1] == "~" else value
    return section.model_copy(update=changes)
