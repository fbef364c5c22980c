"""The dotted keys of the configuration tree: which exist, what each takes, which is nearest."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Slot:
    """What one key of a section takes."""

    sections: tuple[type[BaseModel], ...]
    """The sections it may hold; several for a union keyed on ``type``; none for a leaf."""
    default: Any
    """Its default value."""
    text_only: bool
    """Whether every value is text (or null): then a value on the command line is not parsed."""
    number: bool
    """Whether every value is a number (or null)."""
    open_keys: bool
    """Whether it takes a mapping with any keys."""

    def section(self, value: Mapping[str, Any]) -> type[BaseModel] | None:
        """Return the section that a mapping describes, by its ``type`` where there are several.

        None where the type is unknown, or there is no section here.
        """
        if len(self.sections) <= 1:
            return next(iter(self.sections), None)
        kind = value.get("type", getattr(self.default, "type", None))
        matching = (s for s in self.sections if kind in get_args(s.model_fields["type"].annotation))
        return next(matching, None)


def slots(section: type[BaseModel]) -> dict[str, Slot]:
    """Return the slot of every key of a section."""
    return {name: _slot(field) for name, field in section.model_fields.items()}


def known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key below a section: leaves and sections, each member of a union."""
    keys: list[str] = []
    for name, slot in slots(section).items():
        keys.append(prefix + name)
        for below in slot.sections:
            keys += known_keys(below, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


def nearest_key(wrong: str, section: type[BaseModel]) -> str:
    """Return the known dotted key most like a wrong one, whole or by its last part."""

    def likeness(key: str) -> tuple[float, float]:
        whole = SequenceMatcher(None, wrong, key).ratio()
        last = SequenceMatcher(None, wrong.rsplit(".", 1)[-1], key.rsplit(".", 1)[-1]).ratio()
        return whole + last, whole

    return max(known_keys(section), key=likeness)


def unknown_key(tree: Mapping[str, Any], section: type[BaseModel], prefix: str = "") -> str | None:
    """Return the first dotted key of a tree that the section does not have; None: all known."""
    known = slots(section)
    for name, value in tree.items():
        if name not in known:
            return f"{prefix}{name}"
        below = known[name].section(value) if isinstance(value, Mapping) else None
        wrong = unknown_key(value, below, f"{prefix}{name}.") if below else None
        if wrong is not None:
            return wrong
    return None


def misplaced_switch(
    tree: Mapping[str, Any], section: type[BaseModel], prefix: str = ""
) -> str | None:
    """Return the first dotted key that holds true or false where a number belongs, else None.

    pydantic takes true for 1, and a forgotten value should not pass for a number.
    """
    known = slots(section)
    for name, value in tree.items():
        if isinstance(value, bool):
            if known[name].number:
                return f"{prefix}{name}"
            continue
        below = known[name].section(value) if isinstance(value, Mapping) else None
        wrong = misplaced_switch(value, below, f"{prefix}{name}.") if below else None
        if wrong is not None:
            return wrong
    return None


def _slot(field: Any) -> Slot:
    kinds = list(_kinds(field.annotation))
    return Slot(
        sections=tuple(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)),
        default=field.default,
        text_only=all(k in (str, Path, NoneType) for k in kinds),
        number=all(k in (int, float, NoneType) for k in kinds),
        open_keys=any(get_origin(k) is dict for k in kinds),
    )


def _kinds(annotation: Any) -> list[Any]:
    """Flatten unions, Annotated and Literal into plain kinds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in _kinds(each)]
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    return [annotation]
