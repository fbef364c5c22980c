"""A run without engines: the real pipeline over simulated parts, in virtual time."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.run import RunConfig
from orchestration.costs import Costs
from orchestration.gaps import Call
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger
from orchestration.parts import Parts
from orchestration.pipeline import Pipeline
from orchestration.replay import ReplayQueue
from orchestration.role_counts import role_counts
from orchestration.simulated_machine import Cores
from orchestration.simulated_parts import (
    SimulatedLearner,
    SimulatedPrompts,
    SimulatedQueue,
    SimulatedRecorder,
    SimulatedSampler,
    SimulatedSupervisor,
    SimulatedTeacher,
    World,
)
from orchestration.virtual_time import run_in_virtual_time
from orchestration.weight_sync import WeightSync

NO_TIME = 1e-9
"""Seconds that are none: the clock of a simulation moves by hairs."""
SETTLING_STEPS = 4
"""Steps until the pipeline is as full as it will be: they are not counted."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a simulated run says of a real one."""

    step_seconds: float
    """Mean of the steps behind the first few."""
    pairs_per_second: float
    busy: Mapping[str, float]
    """Share of its time that each role works, replicas averaged."""
    driver: float
    """Share of its one core that the driver uses."""
    driver_seconds: float
    """A step, of its core."""
    driver_calls: float
    """Calls of the driver a step."""
    queue_operations: float
    """A second."""
    queue_seconds: float
    """A step, of the queue's core."""
    fan_out_seconds: float
    """A step: the weights' way to every sampler's machine."""
    tuples_seconds: float
    """A step: a batch's way to a learner rank."""
    calls: Sequence[Call] = field(repr=False)
    """In virtual seconds, by their ends."""


def simulate(config: RunConfig, costs: Costs, *, cores: float, steps: int = 20) -> Forecast:
    """Simulate ``steps`` steps of a run whose parts share ``cores``, in the midst of its course.

    ``cores`` counts what runs at once: all of one machine's, or as many as there are parts where
    each has a GPU or a core of its own. Raises ConfigError for a recipe that draws nothing, and for
    costs with which time does not pass.
    """
    require_balance(config)
    config = _without_stops(config, SETTLING_STEPS + steps + _tail(config))
    with tempfile.TemporaryDirectory() as folder:
        program = _run(
            config, World(costs, Cores(cores, costs.crowding)), Path(folder) / "events.jsonl"
        )
        forecast = run_in_virtual_time(program)
    return Forecast(**forecast)


def require_balance(config: RunConfig) -> None:
    """Raise ConfigError for a recipe that draws nothing, and so has nothing to balance."""
    if not (config.learns_from_student and config.learns_from_teacher):
        raise ConfigError(
            f"objective.type={config.objective.type} draws no student responses with a teacher to "
            "judge them; there is nothing to balance"
        )


def _without_stops(config: RunConfig, steps: int) -> RunConfig:
    """Return the recipe without evaluations and checkpoints, which are counted apart."""
    return config.model_copy(
        update={
            "learner": config.learner.model_copy(update={"steps": steps}),
            "evaluation": config.evaluation.model_copy(update={"every": 0}),
            "checkpoint": config.checkpoint.model_copy(update={"every": 0}),
        }
    )


async def _run(config: RunConfig, world: World, ledger_path: Path) -> dict[str, Any]:
    recorder = SimulatedRecorder(world)
    with Ledger(ledger_path) as ledger:
        parts = _parts(config, world, ledger, recorder)
        await parts.sync.push()
        pipeline = Pipeline(config, parts, evaluate=_never, keep=_never, regroup=_nothing)
        loops = asyncio.ensure_future(pipeline.run())

        async def levels_at(steps: int) -> dict[str, float]:
            reached = asyncio.ensure_future(recorder.reached(steps))
            await asyncio.wait((loops, reached), return_when=asyncio.FIRST_COMPLETED)
            return _levels(world, parts, recorder)

        before = await levels_at(SETTLING_STEPS)
        after = await levels_at(config.learner.steps - _tail(config))
        await loops
        ledger.check()
    return {**_rates(before, after, config), "calls": world.calls}


def _tail(config: RunConfig) -> int:
    """Return the steps at the end in which nothing new is drawn: they are not counted either."""
    return config.replay.max_policy_lag + 2


def _parts(config: RunConfig, world: World, ledger: Ledger, recorder: SimulatedRecorder) -> Parts:
    counts = role_counts(config)
    ranks = [SimulatedLearner(f"learner-{rank}", world) for rank in range(counts["learner"])]
    for rank in ranks:
        rank.ranks = len(ranks)
    samplers = [SimulatedSampler(f"sampler-{index}", world) for index in range(counts["sampler"])]
    learner = LearnerGroup(ranks)
    replay = config.replay.model_copy(update={"max_policy_lag": config.lag_bound})
    queue = ReplayQueue(replay, clock=asyncio.get_running_loop().time)
    made: dict[str, Any] = {
        "prompts": SimulatedPrompts(),
        "samplers": samplers,
        "teachers": [SimulatedTeacher(f"teacher-{i}", world) for i in range(counts["teacher"])],
        "queue": SimulatedQueue(world, queue),
        "learner": learner,
        "sync": WeightSync(learner, samplers),
        "ledger": ledger,
        "recorder": recorder,
        "supervisor": SimulatedSupervisor(),
    }
    return Parts(**made)


def _levels(world: World, parts: Parts, recorder: SimulatedRecorder) -> dict[str, float]:
    queue: Any = parts.queue
    samplers: Any = parts.samplers
    return {
        "now": recorder.times[-1] if recorder.times else 0.0,
        "steps": len(recorder.times),
        "driver": world.driver.busy_seconds,
        "calls": world.driver.served,
        "queue": queue.line.served,
        "queue_seconds": queue.line.busy_seconds,
        "tuples": world.ways["forward_backward"],
        "network": world.network.busy_seconds + max(each.line.busy_seconds for each in samplers),
        **{f"busy_{role}": seconds for role, seconds in world.busy.items()},
    }


def _rates(
    before: Mapping[str, float], after: Mapping[str, float], config: RunConfig
) -> dict[str, Any]:
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    seconds, steps = grown["now"], grown["steps"]
    counts = role_counts(config)
    if seconds <= NO_TIME:
        raise ConfigError(
            "with these costs a step takes no time at all: say what generate, judge and learn take"
        )
    return {
        "step_seconds": seconds / steps,
        "pairs_per_second": config.learner.batch_size * steps / seconds,
        "busy": {
            role: grown.get(f"busy_{role}", 0.0) / (seconds * counts[role])
            for role in ("sampler", "teacher", "learner")
        },
        "driver": grown["driver"] / seconds,
        "driver_seconds": grown["driver"] / steps,
        "driver_calls": grown["calls"] / steps,
        "queue_operations": grown["queue"] / seconds,
        "queue_seconds": grown["queue_seconds"] / steps,
        "fan_out_seconds": grown["network"] / steps,
        "tuples_seconds": grown["tuples"] / steps / counts["learner"],
    }


async def _nothing(step: int) -> None:
    """Let the samplers stay who they are."""


async def _never(step: int) -> None:
    raise AssertionError(f"a simulation stops for nothing, least of all behind step {step}")
