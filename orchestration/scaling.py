"""What the design itself costs with more and more samplers: rows of a table, and the laws of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from configs.run import RunConfig
from orchestration.balance import APART, with_parts
from orchestration.costs import Costs, Linear
from orchestration.simulation import Forecast, simulate

RESOURCES: Mapping[str, Callable[[Forecast], float]] = {
    "driver": lambda seen: seen.driver_seconds,
    "queue": lambda seen: seen.queue_seconds,
    "weights": lambda seen: seen.fan_out_seconds,
    "tuples": lambda seen: seen.tuples_seconds,
}
"""What all samplers share, and the seconds of a step that it takes."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A number of samplers, and what they come to."""

    samplers: int
    teachers: int
    batch: int
    forecast: Forecast
    """Its rates count pairs, though a simulated tuple may stand for several."""
    efficiency: float
    """Pairs a second of each sampler, as a share of what one alone reaches."""


class Law(NamedTuple):
    """How the seconds a step of something that all share grow with the samplers."""

    resource: str
    fixed: float
    each: float
    off: float
    """Largest share by which a simulated point lies beside the line."""
    end: float
    """Samplers with which it takes a whole step of one sampler's; infinite: never."""


def scaled(config: RunConfig, costs: Costs, numbers: Sequence[int]) -> list[Scaled]:
    """Simulate the recipe with more and more samplers, and work in proportion.

    Weak scaling: batch, teachers and the learner's speed grow with the samplers, so that what
    falls off is the design's doing: the queue, the weights' way, the driver.
    """
    found: list[Scaled] = []
    for number in numbers:
        wide = _widened(config, number)
        faster = replace(
            costs, learn=costs.learn._replace(each=costs.learn.each / number), all_reduce=0.0
        )
        grain = _grain(wide)
        seen = simulate(_coarse(wide, grain), _heavier(faster, grain), cores=APART, steps=4)
        seen = replace(seen, pairs_per_second=grain * seen.pairs_per_second)
        each = seen.pairs_per_second / number
        first = found[0].forecast.pairs_per_second / found[0].samplers if found else each
        found.append(
            Scaled(
                samplers=number,
                teachers=wide.teacher.replicas,
                batch=wide.learner.batch_size,
                forecast=seen,
                efficiency=each / first,
            )
        )
    return found


def laws(rows: Sequence[Scaled]) -> list[Law]:
    """Fit a line to each shared resource; the one that ends the scaling first comes first."""
    step = rows[0].forecast.step_seconds
    found = [_law(name, seconds, rows, step) for name, seconds in RESOURCES.items()]
    return sorted(found, key=lambda law: law.end)


def _law(
    name: str, seconds: Callable[[Forecast], float], rows: Sequence[Scaled], step: float
) -> Law:
    points = [(row.samplers, seconds(row.forecast)) for row in rows]
    fixed, each = _line(points)
    off = max((abs((fixed + each * n) / took - 1) for n, took in points if took), default=0.0)
    end = max(0.0, step - fixed) / each if each > 0 else math.inf
    return Law(resource=name, fixed=fixed, each=each, off=off, end=end)


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the line that is least off in proportion: one sampler counts as much as a thousand."""
    weighed = [(n, took, 1 / took**2) for n, took in points if took > 0]
    if len(weighed) < 2:
        return (weighed[0][1] if weighed else 0.0), 0.0
    total = sum(weight for _, _, weight in weighed)
    mean_n = sum(weight * n for n, _, weight in weighed) / total
    mean_took = sum(weight * took for _, took, weight in weighed) / total
    spread = sum(weight * (n - mean_n) ** 2 for n, _, weight in weighed)
    each = sum(w * (n - mean_n) * (took - mean_took) for n, took, w in weighed) / spread
    fixed = mean_took - each * mean_n
    # What rounding leaves of nothing would make a law of its own.
    if abs(each) * max(n for n, _ in points) < 1e-9 * mean_took:
        each, fixed = 0.0, mean_took
    return (fixed if abs(fixed) > 1e-9 * mean_took else 0.0), each


def _widened(config: RunConfig, number: int) -> RunConfig:
    """Return the recipe with so many samplers, overlapped, and teachers and batch in proportion."""
    batch = config.learner.batch_size * number
    teachers = max(1, math.ceil(number * config.teacher.replicas / config.student.replicas))
    wide = with_parts(config, samplers=number, teachers=teachers, lag=1)
    return wide.model_copy(
        update={
            "learner": wide.learner.model_copy(update={"batch_size": batch}),
            "replay": wide.replay.model_copy(update={"max_tuples": 4 * batch}),
        }
    )


def _grain(config: RunConfig) -> int:
    """Return how many pairs one simulated tuple may stand for with no call taking other seconds.

    Every call must carry a whole number of them, and every group of samples, rank and call a share
    of them; else each stands for itself.
    """
    batch, producers = (
        config.learner.batch_size,
        max(config.student.replicas, config.teacher.replicas),
    )
    plain = config.samples_per_prompt == 1 and not config.draws_offline
    if not plain or batch % producers or batch % config.learner.ranks:
        return 1
    call = min(config.student.batch_size, batch // producers)
    return math.gcd(call, batch // producers, batch // config.learner.ranks)


def _coarse(config: RunConfig, grain: int) -> RunConfig:
    """Return the recipe in grains: a call of 128 prompts is one of 4 that stand for 32 each."""
    student = {"batch_size": max(1, config.student.batch_size // grain)}
    learner = {"batch_size": config.learner.batch_size // grain}
    return config.model_copy(
        update={
            "student": config.student.model_copy(update=student),
            "learner": config.learner.model_copy(update=learner),
        }
    )


def _heavier(costs: Costs, grain: int) -> Costs:
    """Return the costs where a prompt is ``grain`` of them."""

    def heavy(line: Linear) -> Linear:
        return line._replace(each=grain * line.each)

    return replace(
        costs,
        generate=heavy(costs.generate),
        judge=heavy(costs.judge),
        learn=heavy(costs.learn),
        respond=heavy(costs.respond),
        latency={method: heavy(line) for method, line in costs.latency.items()},
    )
