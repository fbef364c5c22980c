"""What each call costs, in seconds: all that a simulated run knows of real engines."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from configs.errors import ConfigError


class Linear(NamedTuple):
    """Seconds of a call over n prompts: ``fixed + each * n``, on one core or GPU of its own."""

    fixed: float
    each: float = 0.0

    def of(self, count: int) -> float:
        """Return the seconds of a call over ``count``."""
        return self.fixed + self.each * count

    @classmethod
    def through(cls, points: Mapping[int, float]) -> "Linear":
        """Return the line through seconds by count: of one, a proportion; none falls, or is < 0."""
        assert points
        (low, first), (high, last) = min(points.items()), max(points.items())
        if low == high:
            return cls(0.0, first / low)
        each = min(max(0.0, (last - first) / (high - low)), last / high)
        return cls(max(0.0, last - each * high), each)


NOTHING = Linear(0.0)
EVERY = "every"
"""Stands for the methods that ``Costs.latency`` does not name."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of the calls of one run's parts."""

    generate: Linear
    """A sampler draws y_s for n prompts."""
    judge: Linear
    """A teacher scores n pairs."""
    learn: Linear
    """A learner of one rank makes a step on n pairs."""
    respond: Linear = NOTHING
    """A teacher answers n prompts, its cache as warm as it will be."""
    publish: float = 0.0
    """The learner copies its weights out."""
    load: float = 0.0
    """A sampler takes them in."""
    latency: Mapping[str, Linear] = field(default_factory=dict)
    """Method → from calling it to its beginning, with n prompts to carry there; ``EVERY``: of all
    that are not named."""
    driver: float = 0.0
    """The driver's own core, a call."""
    queue: float = 0.0
    """The queue's own core, an operation."""
    crowding: float = 0.0
    """Share of its speed that a core loses when all cores of its machine work."""
    weight_bytes: float = 0.0
    bandwidth: float = 0.0
    """Bytes a second that leave the learner's machine; 0: everybody shares its memory."""

    def way(self, method: str, carried: int) -> float:
        """Return the seconds from calling a method, with so many prompts, to its beginning."""
        return self.latency.get(method, self.latency.get(EVERY, NOTHING)).of(carried)

    @property
    def transfer(self) -> float:
        """Seconds of sending the weights to one other machine."""
        return self.weight_bytes / self.bandwidth if self.bandwidth else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Costs":
        """Read what ``as_dict`` gave, or a user wrote: a number is a proportion.

        Raises ConfigError for a name or a value that is none.
        """
        known = [each.name for each in fields(cls)]
        if wrong := sorted(set(given) - set(known)):
            raise ConfigError(f"costs name {', '.join(wrong)}; there are {', '.join(known)}")
        if missing := sorted({"generate", "judge", "learn"} - set(given)):
            raise ConfigError(f"costs lack {', '.join(missing)}")
        return cls(**{name: _cost(name, value) for name, value in given.items()})


_LINES = ("generate", "judge", "learn", "respond")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, Linear) else value


def _cost(name: str, value: Any) -> Any:
    try:
        if name == "latency":
            return _latency(value)
        return _line(value) if name in _LINES else _seconds(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"costs: {name}={value!r} is no number of seconds"
            + (", and no [fixed, each]" if name in _LINES else "")
        ) from None


def _line(value: Any) -> Linear:
    """Read [fixed, each], or what each costs."""
    return Linear(*map(_seconds, value)) if isinstance(value, list) else Linear(0, _seconds(value))


def _latency(value: Any) -> dict[str, Linear]:
    """Read lines, or seconds, by method; or seconds that every call takes."""
    if not isinstance(value, Mapping):
        return {EVERY: Linear(_seconds(value))}
    return {
        str(method): _line(each) if isinstance(each, list) else Linear(_seconds(each))
        for method, each in value.items()
    }


def _seconds(value: Any) -> float:
    if not (number := float(value)) >= 0 or math.isinf(number):
        raise ValueError(value)
    return number
