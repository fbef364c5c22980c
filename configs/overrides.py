"""Overrides: ``dotted.key=value`` written into a recipe's tree."""

from typing import Any

import yaml
from pydantic import BaseModel

from configs.errors import ConfigError
from configs.keys import Slot, slots
from configs.run import RunConfig
from configs.yaml_text import describe, parse_yaml

Tree = dict[str, Any]


def split_override(override: str) -> tuple[str, str]:
    """Return key and text of an override; ConfigError where it is not ``key=value``."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"override {override!r} is not key=value: write for example learner.steps=200"
        )
    return key, text


def set_key(tree: Tree, key: str, text: str) -> None:
    """Set a dotted key, making the sections above it where the tree has none or null.

    The value is YAML, except where the key takes only text: that is taken as it stands, since
    templates have braces and revisions may look like numbers; ``null`` and nothing are null,
    and quotes make it YAML again.
    """
    *above, last = key.split(".")
    section: type[BaseModel] | None = RunConfig
    slot: Slot | None = None
    for depth, name in enumerate(above, 1):
        slot = slots(section).get(name) if section else None
        if tree.get(name) is None:
            tree[name] = {}
        tree = tree[name]
        if not isinstance(tree, dict) or (slot and not slot.sections and not slot.open_keys):
            raise ConfigError(
                f"unknown key {key!r}: {'.'.join(above[:depth])} takes a value, it has no keys"
            )
        section = slot.section(tree) if slot else None
    leaf = slots(section).get(last) if section else None
    tree[last] = _parse(key, text, text_only=leaf is not None and leaf.text_only)
    if last == "type" and slot is not None:
        _keep_common(tree, slot)


def _keep_common(tree: Tree, slot: Slot) -> None:
    """Drop what the recipe says about another member of the union than the one now chosen."""
    member = slot.section(tree)
    if member is not None:
        for name in set(tree) - set(slots(member)):
            del tree[name]


def _parse(key: str, text: str, *, text_only: bool) -> Any:
    if text_only and not text.startswith(('"', "'")):
        return None if text in ("null", "~", "") else text
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"override {key}={text}: the value is not valid YAML: {describe(error)[1]}"
        ) from None
