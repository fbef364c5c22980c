"""How many parts of each kind keep each other busy, and where more of them stop helping."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from configs.run import RunConfig
from orchestration.costs import Costs
from orchestration.simulation import Forecast, simulate

APART = 1e6
"""Cores where every part has one, or a GPU, of its own."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A number of samplers, and what they come to."""

    samplers: int
    teachers: int
    batch: int
    forecast: Forecast
    efficiency: float
    """Pairs a second of each sampler, as a share of what one alone reaches."""


def balanced(config: RunConfig, costs: Costs) -> RunConfig:
    """Return the recipe with as many samplers and teachers as keep its learner busy.

    Each on a core or GPU of its own; overlapped, since in lockstep they take turns whatever their
    number is.
    """
    batch = config.learner.batch_size
    share = -(-batch // config.learner.ranks)
    step = costs.learn.of(share) + costs.publish + costs.load + costs.transfer
    samplers = _enough(lambda count: costs.generate.of(-(-batch // count)), step, most=batch)
    judged = costs.respond.of(batch) + costs.judge.of(batch)
    teachers = max(1, math.ceil(judged / step))
    lag = max(1, config.replay.max_policy_lag)
    return with_parts(config, samplers=samplers, teachers=min(teachers, batch), lag=lag)


def _enough(seconds: Callable[[int], float], limit: float, *, most: int) -> int:
    return next((count for count in range(1, most + 1) if seconds(count) <= limit), most)


def with_parts(config: RunConfig, *, samplers: int, teachers: int, lag: int) -> RunConfig:
    """Return the recipe with so many parts."""
    return config.model_copy(
        update={
            "student": config.student.model_copy(update={"replicas": samplers}),
            "teacher": config.teacher.model_copy(update={"replicas": teachers}),
            "replay": config.replay.model_copy(
                update={
                    "max_policy_lag": lag,
                    "max_tuples": max(
                        config.replay.max_tuples, config.learner.batch_size * (lag + 2)
                    ),
                }
            ),
        }
    )


def scaled(config: RunConfig, costs: Costs, numbers: Sequence[int]) -> list[Scaled]:
    """Simulate the recipe with more and more samplers, and work in proportion.

    Weak scaling: batch, teachers and the learner's speed grow with the samplers, so that what
    falls off is the design's doing: the queue, the weights' way, the driver.
    """
    found: list[Scaled] = []
    for number in numbers:
        batch = config.learner.batch_size * number
        teachers = max(1, math.ceil(number * config.teacher.replicas / config.student.replicas))
        wide = with_parts(config, samplers=number, teachers=teachers, lag=1)
        wide = wide.model_copy(
            update={
                "learner": wide.learner.model_copy(update={"batch_size": batch}),
                "replay": wide.replay.model_copy(update={"max_tuples": 4 * batch}),
            }
        )
        faster = costs.learn._replace(each=costs.learn.each / number)
        forecast = simulate(wide, replace(costs, learn=faster), cores=APART, steps=4)
        each = forecast.pairs_per_second / number
        first = found[0].forecast.pairs_per_second / found[0].samplers if found else each
        found.append(
            Scaled(
                samplers=number,
                teachers=teachers,
                batch=batch,
                forecast=forecast,
                efficiency=each / first,
            )
        )
    return found
