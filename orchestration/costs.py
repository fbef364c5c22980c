"""What each call costs, in seconds: all that a simulated run knows of real engines."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from configs.errors import ConfigError
from orchestration.gaps import AFTER


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
METHODS = (*AFTER, "put", "lease", "ack", "statistics", "take_stale", EVERY)
"""What ``Costs.latency`` may name: the calls of a run."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of the calls of one run's parts."""

    generate: Linear
    """A sampler draws y_s for n prompts."""
    judge: Linear
    """A teacher scores n pairs."""
    learn: Linear
    """A learner's rank makes a step on its share of n pairs."""
    all_reduce: float = 0.0
    """One whole copy of the gradients crosses from a rank to the next."""
    respond: Linear = NOTHING
    """A teacher answers n prompts, its cache as warm as it will be."""
    publish: float = 0.0
    """The learner copies its weights out."""
    probe: float = 0.0
    """It computes what they are to be proved by."""
    load: float = 0.0
    """A sampler takes them in."""
    latency: Mapping[str, Linear] = field(default_factory=dict)
    """Method → from calling it to its beginning, with n prompts to carry there; ``EVERY``: of all
    that are not named."""
    driver: float = 0.0
    """The driver's own core, a call."""
    step: float = 0.0
    """The driver's own core, a step, besides: its books, what it shows."""
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

    def learning(self, pairs: int, ranks: int) -> float:
        """Return the seconds of a step on so many pairs, each rank on its share.

        Then they add their gradients up as in a ring: 2 (R - 1) / R copies leave every rank.
        """
        share = -(-pairs // ranks)
        return self.learn.of(share) + 2 * (ranks - 1) / ranks * self.all_reduce

    @property
    def transfer(self) -> float:
        """Seconds of sending the weights to one other machine."""
        return self.weight_bytes / self.bandwidth if self.bandwidth else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_dict(cls, given: Mapping[Any, Any]) -> "Costs":
        """Read what ``as_dict`` gave, or a user wrote: a number is a proportion.

        Raises ConfigError for a name or a value that is none.
        """
        known = [each.name for each in fields(cls)]
        _refuse_unknown("costs", given, known)
        if missing := sorted({"generate", "judge", "learn"} - set(given)):
            raise ConfigError(f"costs lack {', '.join(missing)}")
        costs = cls(**{name: _cost(name, value) for name, value in given.items()})
        if costs.transfer > _MOST[False]:
            raise ConfigError(
                f"costs: bandwidth={costs.bandwidth:g} takes {costs.transfer:g} s for "
                f"weight_bytes={costs.weight_bytes:g}, which is no time to plan with"
            )
        return costs


_LINES = ("generate", "judge", "learn", "respond")
_BYTES = ("weight_bytes", "bandwidth")
_MOST = {False: 1e6, True: 1e18}
"""Largest number of seconds (12 days), and of bytes: beyond, virtual time takes real time."""


def _refuse_unknown(where: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Raise ConfigError for the names that there are not, with the nearest that there is."""
    names = list(known)
    wrong = sorted(str(name) for name in given if name not in names)
    if wrong:
        near = get_close_matches(wrong[0], names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{where} name {', '.join(wrong)}; {hint}there are {', '.join(names)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, Linear) else value


def _cost(name: str, value: Any) -> Any:
    try:
        if name == "latency":
            return _latency(value)
        if name == "crowding":
            return _share(value)
        return _line(value) if name in _LINES else _number(value, _MOST[name in _BYTES])
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"costs: {name}={value!r} is no {_expected(name)}") from None


def _expected(name: str) -> str:
    if name == "crowding":
        return "share of a core's speed: 0 or more, and less than 1"
    kind = "number of bytes" if name in _BYTES else "number of seconds"
    kind += f" up to {_MOST[name in _BYTES]:g}"
    return kind + (", and no [fixed, each]" if name in _LINES else "")


def _line(value: Any) -> Linear:
    """Read [fixed, each], or what each costs."""
    return Linear(*map(_number, value)) if isinstance(value, list) else Linear(0, _number(value))


def _latency(value: Any) -> dict[str, Linear]:
    """Read lines, or seconds, by method; or seconds that every call takes."""
    if not isinstance(value, Mapping):
        return {EVERY: Linear(_number(value))}
    _refuse_unknown("costs: the methods of latency", value, METHODS)
    return {
        method: _line(each) if isinstance(each, list) else Linear(_number(each))
        for method, each in value.items()
    }


def _share(value: Any) -> float:
    if not (share := _number(value)) < 1:
        raise ValueError(value)
    return share


def _number(value: Any, most: float = _MOST[False]) -> float:
    if isinstance(value, bool) or not 0 <= (number := float(value)) <= most:
        raise ValueError(value)
    return number
