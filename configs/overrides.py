"""What is laid over a recipe's tree: another recipe, and overrides ``dotted.key=value``."""

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
    if last == "type" and slot is not None and slot.section(tree) not in (None, section):
        _keep_common(tree, slot)


def lay_over(tree: Tree, upper: Tree, section: type[BaseModel] | None) -> None:
    """Write what ``upper`` says into ``tree``, section by section; a leaf replaces a leaf."""
    known = slots(section) if section else {}
    for name, value in upper.items():
        slot, lower = known.get(name), tree.get(name)
        if not isinstance(value, dict) or not isinstance(lower, dict):
            tree[name] = value
            continue
        if slot is not None and len(slot.sections) > 1 and "type" in value:
            before = slot.section(lower)
            lower["type"] = value["type"]
            if slot.section(lower) not in (None, before):
                _keep_common(lower, slot)
        lay_over(lower, value, slot.section(lower) if slot else None)


def _keep_common(tree: Tree, slot: Slot) -> None:
    """Drop what the recipe says about another member of the union than the one now chosen.

    Only what every member has means the same in all of them: one objective's beta is not
    another's.
    """
    for name in set(tree) - set.intersection(*(set(slots(member)) for member in slot.sections)):
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
