"""A grid of overrides, expanded into one method for every combination of its values."""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import NamedTuple

from configs.errors import ConfigError
from configs.run import RunConfig

Scalar = bool | int | float | str | None
Axis = tuple[Scalar, ...] | dict[str, tuple[str, ...]]
"""Values of one key, or named points with the overrides of each."""


class GridPoint(NamedTuple):
    """One combination of a grid's values."""

    name: str
    """For folders: ``max_policy_lag_2-lm_weight_0.5``."""
    label: str
    """For readers: ``max_policy_lag 2, lm_weight 0.5``."""
    overrides: tuple[str, ...]


def expand(grid: Mapping[str, Axis]) -> list[GridPoint]:
    """Return every combination, the last axis varying fastest; none for an empty grid.

    >>> expand({"learner.steps": (5,), "lag": {"frozen": ("negatives.type=initial",)}})[0].name
    'steps_5-lag_frozen'

    Raises ConfigError for an axis without values, for values of what is no key, and where two
    combinations get one name.
    """
    if not grid:
        return []
    short = _short_names(grid)
    axes = [_points(short[key], key, axis) for key, axis in grid.items()]
    points = [_joined(combination) for combination in product(*axes)]
    names = [point.name for point in points]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"grid: two of its combinations are called {twice}; name its values apart"
        )
    return points


def _points(short: str, key: str, axis: Axis) -> list[GridPoint]:
    if not axis:
        raise ConfigError(f"grid.{key}: at least one value is expected, got none")
    if isinstance(axis, dict):
        pairs: Iterable[tuple[str, tuple[str, ...]]] = axis.items()
    else:
        _refuse_bare_word(key, axis)
        pairs = [(_text(value), (f"{key}={_text(value)}",)) for value in axis]
    return [
        GridPoint(re.sub(r"[^A-Za-z0-9._]+", "-", f"{short}_{text}"), f"{short} {text}", overrides)
        for text, overrides in pairs
    ]


def _refuse_bare_word(key: str, axis: tuple[Scalar, ...]) -> None:
    if "." not in key and key not in RunConfig.model_fields:
        raise ConfigError(
            f"grid.{key}: {key!r} is no key of a run, so its points need a name and overrides "
            f"each: {key}: {{{_text(axis[0])}: [section.key=value]}}"
        )


def _joined(points: Iterable[GridPoint]) -> GridPoint:
    names, labels, overrides = zip(*points, strict=True)
    return GridPoint(
        "-".join(names), ", ".join(labels), tuple(o for each in overrides for o in each)
    )


def _short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return each dotted key's last part, or as many as tell it from the other keys."""
    keys = list(keys)
    short = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        alone = (tail for tail in tails if not any(o.endswith(f".{tail}") for o in others))
        short[key] = next(alone, key)
    return short


def _text(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
