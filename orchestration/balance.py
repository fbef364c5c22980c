"""How many parts of each kind keep each other busy: what the simulation finds, not a formula."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from configs.agreement import check_agreement
from configs.run import RunConfig
from orchestration.costs import Costs
from orchestration.simulation import Forecast, simulate

APART = math.inf
"""Cores where every part has one, or a GPU, of its own."""
ENOUGH = 0.95
"""Share of the best rate with which fewer parts will do."""
LITTLE = 1.01
"""Less than this is no gain: two such candidates in a row end a search upwards."""
STEPS = 8
"""Simulated steps of a candidate."""
KINDS = ("samplers", "teachers", "ranks")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """How many of each kind."""

    samplers: int
    teachers: int
    ranks: int


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A recipe in balance, and what it comes to."""

    config: RunConfig
    forecast: Forecast


def balanced(config: RunConfig, costs: Costs) -> Balance:
    """Return the recipe with so many parts that none of the kinds, by itself, would gain by more.

    Each on a core or GPU of its own; overlapped where the recipe may be, since in lockstep they
    take turns whatever their number is. One kind after the other gets the smallest number with
    which the simulated rate is within 5 % of the best that was seen, until none changes. Never
    slower than the recipe itself.
    """
    search = _Search(config, costs)
    given = simulate(config, costs, cores=APART, steps=STEPS).pairs_per_second
    parts = best = search.given
    while True:
        for kind in KINDS:
            best = search.better(best, kind, at_least=given)
        if best == parts:
            break
        parts = best
    found = search.config_of(best)
    if search.rate(best) < given:
        found = config  # overlapping itself is what costs
    return Balance(config=found, forecast=simulate(found, costs, cores=APART))


@dataclass
class _Search:
    """Rates of the recipe with other numbers of parts, each simulated once."""

    config: RunConfig
    costs: Costs
    best: float = 0.0
    """The highest rate that was seen."""
    _rates: dict[Parts, float] = field(default_factory=dict)
    given: Parts = field(init=False)
    lag: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the recipe's own parts, overlapped where that may be."""
        config = self.config
        self.given = Parts(
            samplers=config.student.replicas,
            teachers=config.teacher.replicas,
            ranks=config.learner.ranks,
        )
        self.lag = max(1, config.replay.max_policy_lag)
        if not self.allows(self.given):
            self.lag = config.replay.max_policy_lag

    def config_of(self, parts: Parts) -> RunConfig:
        """Return the recipe with such parts."""
        return with_parts(self.config, **vars(parts), lag=self.lag)

    def allows(self, parts: Parts) -> bool:
        """Return whether the recipe's other settings go with such parts."""
        try:
            check_agreement(self.config_of(parts))
        except ValueError:
            return False
        return True

    def rate(self, parts: Parts) -> float:
        """Return the pairs a second."""
        if parts not in self._rates:
            forecast = simulate(self.config_of(parts), self.costs, cores=APART, steps=STEPS)
            self._rates[parts] = forecast.pairs_per_second
            self.best = max(self.best, forecast.pairs_per_second)
        return self._rates[parts]

    def better(self, parts: Parts, kind: str, *, at_least: float) -> Parts:
        """Return the parts with the smallest number of one kind that is as good as the best."""
        line = {getattr(parts, kind): parts}
        best, idle = 0.0, 0
        for count in self._candidates(parts, kind):
            other = Parts(**{**vars(parts), kind: count})
            if not self.allows(other):
                continue
            rate = self.rate(other)
            line[count] = other
            idle = 0 if rate > LITTLE * best else idle + 1
            best = max(best, rate)
            if idle == 2:
                break
        top = max(self.rate(other) for other in line.values())
        enough = min(top, max(at_least, ENOUGH * self.best))
        return next(line[count] for count in sorted(line) if self.rate(line[count]) >= enough)

    def _candidates(self, parts: Parts, kind: str) -> list[int]:
        batch = self.config.learner.batch_size
        if kind == "ranks":
            return sorted({*_divisors_near_powers(batch)})
        guess: Mapping[str, Callable[[], int]] = {
            "samplers": lambda: self._samplers_for(parts.ranks),
            "teachers": lambda: self._teachers_for(parts.ranks),
        }
        powers = (1 << exponent for exponent in range(batch.bit_length()))
        return sorted({*powers, min(batch, guess[kind]())})

    def _samplers_for(self, ranks: int) -> int:
        """Guess how many draw a batch while the learner makes a step."""
        batch, step = self.config.learner.batch_size, self._step(ranks)
        seconds = ((n, self.costs.generate.of(-(-batch // n))) for n in range(1, batch + 1))
        return next((count for count, took in seconds if took <= step), 1)

    def _teachers_for(self, ranks: int) -> int:
        """Guess how many judge a batch while the learner makes a step."""
        batch, step = self.config.learner.batch_size, self._step(ranks)
        judged = self.costs.respond.of(batch) + self.costs.judge.of(batch)
        return next((n for n in range(1, batch + 1) if judged <= n * step), 1)

    def _step(self, ranks: int) -> float:
        """Return what the learner takes for a step and for having its weights out."""
        costs = self.costs
        learning = costs.learning(self.config.learner.batch_size, ranks)
        return learning + costs.publish + costs.load + costs.transfer


def _divisors_near_powers(batch: int) -> Iterator[int]:
    """Yield of each power of two the next divisor: ranks have even shares of a batch."""
    for exponent in range(batch.bit_length()):
        yield next(count for count in range(1 << exponent, batch + 1) if batch % count == 0)


def with_parts(
    config: RunConfig, *, samplers: int, teachers: int, lag: int, ranks: int | None = None
) -> RunConfig:
    """Return the recipe with so many parts; ``ranks`` of None: those that it has."""
    first, learner = config.student.initial_replicas, config.learner
    room = max(config.replay.max_tuples, learner.batch_size * (lag + 2))
    student = {"replicas": samplers, "initial_replicas": min(first, samplers) if first else None}
    update = {
        "student": config.student.model_copy(update=student),
        "teacher": config.teacher.model_copy(update={"replicas": teachers}),
        "replay": config.replay.model_copy(update={"max_policy_lag": lag, "max_tuples": room}),
        "learner": learner.model_copy(update={"ranks": ranks or learner.ranks}),
    }
    return config.model_copy(update=update)
