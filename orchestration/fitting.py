"""From measured runs to costs: those with which the simulated runs take as long."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from configs.run import RunConfig
from orchestration.balance import APART
from orchestration.costs import Costs, Linear
from orchestration.measured_run import Measured
from orchestration.simulation import simulate

LONGEST_LATENCY = 0.25
MOST_CROWDING = 0.7


def fit(
    kinds: Mapping[str, RunConfig], seen: Mapping[str, Sequence[Measured]], *, cores: float
) -> Costs:
    """Return the costs that ``calibration.calibrations`` show: medians over calls, then runs.

    What steps take beyond their calls is latency; what an overlapped one takes beyond that,
    crowding. Each is what makes the simulated run take as long as the measured one.
    """
    took = {kind: statistics.median(run.step_seconds for run in seen[kind]) for kind in kinds}
    costs = _of_calls(kinds["whole"], seen)
    costs = replace(costs, **_of_driver(kinds["whole"], seen["whole"], costs))
    costs = replace(costs, latency=_latency(kinds, took, costs))
    crowding = _meeting(
        lambda share: _step(kinds["overlapped"], replace(costs, crowding=share), cores),
        took["overlapped"],
        most=MOST_CROWDING,
    )
    return replace(costs, crowding=crowding)


def _latency(kinds: Mapping[str, RunConfig], took: Mapping[str, float], costs: Costs) -> Linear:
    """Return what calls take on their way.

    In half batches the same prompts are carried by twice the calls: how much longer that takes
    tells what a call waits whatever it carries; the rest of a step, what a prompt adds.
    """

    def step(kind: str, fixed: float, each: float = 0.0) -> float:
        return _step(kinds[kind], replace(costs, latency=Linear(fixed, each)), APART)

    def fixed_up_to(most: float) -> float:
        return _meeting(lambda fixed: step("whole", fixed), took["whole"], most=most)

    fixed = _meeting(
        lambda fixed: step("half", fixed) - step("whole", fixed),
        took["half"] - took["whole"],
        most=fixed_up_to(LONGEST_LATENCY),
    )
    each = _meeting(lambda each: step("whole", fixed, each), took["whole"], most=LONGEST_LATENCY)
    return Linear(fixed, each)


def _step(config: RunConfig, costs: Costs, cores: float) -> float:
    return simulate(config, costs, cores=cores, steps=8).step_seconds


def _of_calls(whole: RunConfig, seen: Mapping[str, Sequence[Measured]]) -> Costs:
    """Return what calls take by themselves: lines through whole and half batches."""
    batch = whole.learner.batch_size
    runs = {batch: seen["whole"], max(1, batch // 2): seen["half"]}

    def median(method: str, of: Sequence[Measured]) -> float:
        return statistics.median(run.median(method) for run in of)

    def line(method: str) -> Linear:
        return Linear.through({size: median(method, of) for size, of in runs.items()})

    learn = median("forward_backward", runs[batch]) + median("optim_step", runs[batch])
    return Costs(
        generate=line("generate"),
        respond=line("respond"),
        judge=line("judge"),
        learn=Linear.through({batch: learn}),
        publish=median("publish_weights", runs[batch]),
        load=median("load_weights", runs[batch]),
        weight_bytes=float(runs[batch][0].summary["weight_sync"]["bytes"]),
    )


def _of_driver(whole: RunConfig, seen: Sequence[Measured], costs: Costs) -> dict[str, float]:
    """Return what the driver does for a call; the queue's process does as much for an operation."""
    spent = statistics.median(
        run.summary["throughput"]["driver_thread_seconds_per_step"] for run in seen
    )
    call = spent / simulate(whole, costs, cores=APART, steps=4).driver_calls
    return {"driver": call, "queue": call}


def _meeting(foretold: Callable[[float], float], seconds: float, *, most: float) -> float:
    """Return the number from 0 to ``most`` with which ``seconds`` are foretold."""
    low, high = 0.0, most
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if foretold(middle) > seconds else (middle, high)
    return low
