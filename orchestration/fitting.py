"""From measured runs to costs: those with which the simulated runs take as long."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from configs.run import RunConfig
from orchestration.balance import APART
from orchestration.costs import Costs, Linear
from orchestration.gaps import gap_before, seconds_of
from orchestration.measured_run import Measured
from orchestration.simulation import simulate

MOST_CROWDING = 0.6
AT_ONCE = ("overlapped", "abreast")
"""Calibrations in which several parts work at the same time; a recipe may rule them out."""
CARRYING = ("generate", "respond", "judge")
"""Calls that bring prompts, or what was made of them, in whole or in half batches."""
EMPTY_HANDED = ("optim_step", "publish_weights", "probe", "load_weights")


def fit(
    kinds: Mapping[str, RunConfig], seen: Mapping[str, Sequence[Measured]], *, cores: float
) -> Costs:
    """Return the costs that ``calibration.calibrations`` show: medians over calls, then runs.

    What passes in lockstep between two calls, more than a simulation without latency has there, is
    latency. What steps take in which several parts work at once, more than is then simulated, is
    crowding.
    """
    costs = _of_calls(kinds["whole"], seen)
    costs = replace(costs, **_of_driver(kinds, seen, costs))
    costs = replace(costs, latency=_latency(kinds, seen, costs))
    return replace(costs, crowding=_crowding(kinds, seen, costs, cores))


def _crowding(
    kinds: Mapping[str, RunConfig],
    seen: Mapping[str, Sequence[Measured]],
    costs: Costs,
    cores: float,
) -> float:
    """Return the crowding with which the runs that use several cores are told best; 0: no run."""
    at_once = [kind for kind in AT_ONCE if kind in kinds]
    took = {kind: statistics.median(run.step_seconds for run in seen[kind]) for kind in at_once}

    def error(crowding: float) -> float:
        crowded = replace(costs, crowding=crowding)
        told = {
            kind: simulate(kinds[kind], crowded, cores=cores, steps=8).step_seconds
            for kind in at_once
        }
        return sum((told[kind] / took[kind] - 1) ** 2 for kind in at_once)

    return _least(error, MOST_CROWDING) if at_once else 0.0


def _least(error: Callable[[float], float], most: float) -> float:
    """Return where from 0 to ``most`` a function with one valley is least, to a hundredth."""
    return min((step / 100 for step in range(round(100 * most) + 1)), key=error)


def _latency(
    kinds: Mapping[str, RunConfig], seen: Mapping[str, Sequence[Measured]], costs: Costs
) -> dict[str, Linear]:
    """Return what lies before each call, of whole and of half batches: a line through both."""
    batch = kinds["whole"].learner.batch_size
    sizes = {"whole": batch, "half": max(1, batch // 2)}
    without = {kind: simulate(kinds[kind], costs, cores=APART, steps=8).calls for kind in sizes}

    def before(method: str, kind: str) -> float:
        measured = statistics.median(gap_before(run.calls, method) for run in seen[kind])
        return max(0.0, measured - gap_before(without[kind], method))

    lines = {
        method: Linear.through({size: before(method, kind) for kind, size in sizes.items()})
        for method in CARRYING
    }
    # Between judging and learning the queue takes the tuples in and hands them out: as much is
    # carried as to the judge, twice.
    learning = before("forward_backward", "whole")
    each = min(2 * lines["judge"].each, learning / batch)
    lines["forward_backward"] = Linear(learning - each * batch, each)
    return lines | {method: Linear(before(method, "whole")) for method in EMPTY_HANDED}


def _of_calls(whole: RunConfig, seen: Mapping[str, Sequence[Measured]]) -> Costs:
    """Return what calls take by themselves: lines through whole and half batches."""
    batch = whole.learner.batch_size
    runs = {batch: seen["whole"], max(1, batch // 2): seen["half"]}

    def median(method: str, of: Sequence[Measured]) -> float:
        return statistics.median(seconds_of(run.calls, method) for run in of)

    def line(method: str) -> Linear:
        return Linear.through({size: median(method, of) for size, of in runs.items()})

    learn = median("forward_backward", runs[batch]) + median("optim_step", runs[batch])
    return Costs(
        generate=line("generate"),
        respond=line("respond"),
        judge=line("judge"),
        learn=Linear.through({batch: learn}),
        publish=median("publish_weights", runs[batch]),
        probe=median("probe", runs[batch]),
        load=median("load_weights", runs[batch]),
        weight_bytes=float(runs[batch][0].summary["weight_sync"]["bytes"]),
    )


def _of_driver(
    kinds: Mapping[str, RunConfig], seen: Mapping[str, Sequence[Measured]], costs: Costs
) -> dict[str, float]:
    """Return what the driver does for a call and for a step: runs differ in calls a step.

    The queue's process does as much for an operation as the driver for a call.
    """
    spent = {}
    for kind in ("whole", "half"):
        calls = simulate(kinds[kind], costs, cores=APART, steps=4).driver_calls
        spent[round(calls)] = statistics.median(
            run.summary["throughput"]["driver_thread_seconds_per_step"] for run in seen[kind]
        )
    line = Linear.through(spent)
    return {"driver": line.each, "queue": line.each, "step": line.fixed}
