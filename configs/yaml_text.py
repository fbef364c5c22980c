"""YAML as recipes use it: the scalars of YAML 1.2, and no key twice.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``no`` is False, ``12:30`` is 750, ``010`` is 8
and ``2024-11-22`` is a date. Here the core schema of YAML 1.2 decides what a plain scalar is,
in reading and in writing alike.
"""

import re
from typing import Any

import yaml
from yaml.parser import ParserError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

_SCALARS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} occurs twice; leave one out",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), list(_first))


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document; yaml.YAMLError where it is none."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ReaderError as error:  # knows no line
        line = text.count("\n", 0, error.position)
        raise yaml.MarkedYAMLError(
            problem=f"the character {chr(error.character)!r} is not allowed; delete it",
            problem_mark=yaml.Mark("", error.position, line, 0, None, 0),
        ) from None
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def write_yaml(value: Any) -> str:
    """Return plain values as block YAML in their own order, in ASCII; ``parse_yaml`` reads it."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)


def describe(error: yaml.YAMLError) -> tuple[int | None, str]:
    """Return the one-based line of an error, where it has one, and its message in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(part) for part in (error.context, error.problem) if part)
        if isinstance(error, ParserError | ScannerError):
            message += "; see its indentation, quotes and brackets"
        return (mark.line + 1 if mark else None), " ".join(message.split())
    return None, " ".join(str(error).split())
