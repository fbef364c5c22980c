"""From a recipe and overrides to a checked RunConfig, and back to YAML.

A recipe is a YAML file that says what differs from the defaults, or with ``extends: RECIPE``
from another recipe. An override is ``dotted.key=value``; the value is YAML, except where the key
takes only text. Imports nothing heavy: a mistake in a config is answered in a fraction of a
second.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from configs.base import Section
from configs.complaints import complaint
from configs.errors import ConfigError
from configs.keys import known_keys, misplaced_switch, nearest_key, slots, unknown_key
from configs.overrides import Tree, lay_over, set_key, split_override
from configs.run import RunConfig
from configs.yaml_files import named_file, names_in, read_mapping
from configs.yaml_text import write_yaml

RECIPES = Path(__file__).parent / "recipes"
"""Folder of the recipes that can be named without a path."""
DEFAULT_RECIPE = "quickstart"
_PASSWORD = re.compile(r"//[^/\s]*@")
"""Name and password in an address, which no message repeats."""


def load(recipe: str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the config of a recipe with overrides applied, in their order.

    ``recipe`` is a name in ``configs/recipes`` or a path; None is the quickstart. ``~`` is
    expanded; other relative paths are relative to the current directory.
    Raises ConfigError, one line, for anything that is wrong with either.
    """
    path = recipe_path(recipe or DEFAULT_RECIPE)
    tree = _read_whole(path)
    given: dict[str, str] = {}
    # Types first: what a type changes is the recipe's section, not the other overrides.
    split = [(*split_override(override), override) for override in overrides]
    for key, text, override in sorted(split, key=lambda each: not each[0].endswith(".type")):
        set_key(tree, key, text)
        given[key] = _PASSWORD.sub("//***@", override)
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
    return names_in(RECIPES)


def recipe_path(recipe: str) -> Path:
    """Return the file of a recipe name or path; ConfigError names the known ones."""
    return named_file("recipe", recipe, RECIPES)


def _read_whole(path: Path, below: tuple[Path, ...] = ()) -> Tree:
    """Return a recipe's tree, laid over that of the recipe which it extends."""
    tree = read_mapping("recipe", path)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"recipe {path}: extends takes a recipe's name or path, got {base!r}")
    beside = path.parent / base
    try:
        base_path = beside if beside.is_file() else recipe_path(base)
    except ConfigError as error:
        raise ConfigError(f"recipe {path} extends {base!r}: {error}") from None
    if base_path.resolve() in {each.resolve() for each in (path, *below)}:
        raise ConfigError(
            f"recipe {path} extends itself, by way of {base_path}; take one extends out"
        )
    whole = _read_whole(base_path, (path, *below))
    lay_over(whole, tree, RunConfig)
    return whole


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
        section = key.partition(".")[0]  # every union is at the top of the tree
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
