"""A validation error in one sentence: the key, what it takes, what it got."""

from typing import Any

from pydantic import BaseModel, ValidationError

from configs.keys import Slot, slots

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text that is not empty",
    "too_long": "at most {max_length} values",
    "too_short": "at least {min_length} values",
    "finite_number": "a finite number",
}


def complaint(error: ValidationError, root: type[BaseModel]) -> tuple[str, str]:
    """Return the dotted key and the sentence for the first problem of an error.

    The key is empty for a rule that crosses sections: its message names the keys.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    key = dotted_key(first["loc"], root)
    # Each member of a plain union complains on its own: what they expect is one sentence.
    same = [p for p in problems if dotted_key(p["loc"], root) == key]
    if first["type"] == "value_error":
        message = str(first.get("ctx", {}).get("error", first["msg"]))
        return key, message if not key or key in message else f"{key}: {message}"
    if first["type"] == "missing":  # its input is the whole section
        return key, f"{key} is missing: a value is expected"
    if first["type"] == "union_tag_invalid":
        value, key = first.get("ctx", {})["tag"], f"{key}.type"
    else:
        value = first["input"]
    expected = " or ".join(dict.fromkeys(_expected(problem) for problem in same))
    return key, f"{key}: {expected} is expected, got {_shown(value)}"


def dotted_key(location: tuple[Any, ...], root: type[BaseModel]) -> str:
    """Return pydantic's location without its marks for the members of a union."""
    parts: list[str] = []
    section: type[BaseModel] | None = root
    members: tuple[type[BaseModel], ...] = ()
    for part in location:
        if members and (chosen := _member(part, members)):
            section, members = chosen, ()
            continue
        slot: Slot | None = slots(section).get(part) if section else None
        if slot is None:
            # Below a leaf: a position in a list or a free key; marks of a plain union are not.
            if isinstance(part, int):
                parts.append(str(part))
            continue
        parts.append(str(part))
        section = slot.sections[0] if len(slot.sections) == 1 else None
        members = slot.sections if len(slot.sections) > 1 else ()
    return ".".join(parts)


def _member(part: Any, members: tuple[type[BaseModel], ...]) -> type[BaseModel] | None:
    for member in members:
        if part in (member.model_fields["type"].default, member.__name__):
            return member
    return None


def _expected(problem: Any) -> str:
    pattern = _EXPECTED.get(problem["type"])
    if pattern is None:
        return problem["msg"][:1].lower() + problem["msg"][1:]
    return pattern.format(**problem.get("ctx", {})).replace("'", "")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
