"""What each call costs, in seconds: all that a simulated run knows of real engines."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
    latency: Linear = NOTHING
    """From calling a part to its beginning, with n prompts to carry there."""
    driver: float = 0.0
    """The driver's own core, a call."""
    queue: float = 0.0
    """The queue's own core, an operation."""
    crowding: float = 0.0
    """Share of its speed that a core loses when all cores of its machine work."""
    weight_bytes: float = 0.0
    bandwidth: float = 0.0
    """Bytes a second that leave the learner's machine; 0: everybody shares its memory."""

    @property
    def transfer(self) -> float:
        """Seconds of sending the weights to one other machine."""
        return self.weight_bytes / self.bandwidth if self.bandwidth else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {k: list(v) if isinstance(v, Linear) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Costs":
        """Read what ``as_dict`` gave, or a user wrote: a number is a proportion.

        Raises ConfigError for a name or a value that is none.
        """
        known = {field.name: field for field in fields(cls)}
        if wrong := sorted(set(given) - set(known)):
            raise ConfigError(f"costs name {', '.join(wrong)}; there are {', '.join(known)}")
        if missing := sorted({"generate", "judge", "learn"} - set(given)):
            raise ConfigError(f"costs lack {', '.join(missing)}")
        return cls(**{name: _cost(name, value) for name, value in given.items()})


_LINES = ("generate", "judge", "learn", "respond", "latency")


def _cost(name: str, value: Any) -> Any:
    try:
        if name not in _LINES:
            return _seconds(value)
        return Linear(*map(_seconds, value)) if isinstance(value, list) else _of_one(name, value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"costs: {name}={value!r} is no number of seconds"
            + (", and no [fixed, each]" if name in _LINES else "")
        ) from None


def _of_one(name: str, value: Any) -> Linear:
    """Read one number: what a prompt costs, or what any call waits."""
    seconds = _seconds(value)
    return Linear(seconds) if name == "latency" else Linear(0, seconds)


def _seconds(value: Any) -> float:
    if not (number := float(value)) >= 0 or math.isinf(number):
        raise ValueError(value)
    return number
