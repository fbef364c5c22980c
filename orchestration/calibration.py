"""Measures what calls cost: by short runs of the recipe's own parts, on this machine."""

import asyncio
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.errors import DependencyError
from configs.load import dump
from configs.run import RunConfig
from orchestration.balance import APART
from orchestration.costs import Costs, Linear
from orchestration.processes import Processes
from orchestration.simulation import Forecast, simulate
from orchestration.timeline import TIMELINE_NAME

STEPS = 30
"""Steps of a calibration run: enough for a median, the first few left out."""
SKIPPED = 4
"""First calls of each kind, in which engines do what they do only once."""
LONGEST_LATENCY = 0.25
MOST_CROWDING = 0.7


class Measured:
    """What one finished run tells of its calls."""

    def __init__(self, folder: Path) -> None:
        events = json.loads((folder / TIMELINE_NAME).read_text(encoding="utf-8"))
        calls: defaultdict[str, list[float]] = defaultdict(list)
        for event in events:
            if event["ph"] == "X" and event["cat"] == "busy":
                calls[event["args"]["method"]].append(event["dur"] / 1e6)
        self._calls = calls
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line)["seconds"] for line in lines]
        self.step_seconds = statistics.median(steps[SKIPPED:])
        self.summary: Mapping[str, Any] = json.loads((folder / "summary.json").read_text())

    def median(self, method: str) -> float:
        """Return the median seconds of a method's calls; 0: it was not called."""
        calls = self._calls.get(method, [])
        return statistics.median(calls[SKIPPED:] or calls) if calls else 0.0


def calibrate(
    config: RunConfig, folder: Path, announce: Callable[[str], None], *, cores: float
) -> Costs:
    """Run the recipe three times for ``STEPS`` steps, with one part of each kind, on ``cores``.

    In lockstep with whole and with half batches a call, then overlapped. Logs and run folders stay
    in ``folder``. Raises DependencyError where a run fails.
    """
    batch = config.learner.batch_size
    lockstep = {size: _one_of_each(config, size, lag=0) for size in (batch, max(1, batch // 2))}
    overlapped = _one_of_each(config, batch, lag=1)
    runs: list[Measured] = []
    for number, each in enumerate((*lockstep.values(), overlapped), start=1):
        announce(f"calibration {number} of 3: {STEPS} steps, {_named(each)}")
        runs.append(Measured(run_quietly(_bare(each, f"calibration-{number}", folder), folder)))
    costs = fit(lockstep[batch], dict(zip(lockstep, runs, strict=False)))
    return with_crowding(costs, overlapped, runs[-1].step_seconds, cores=cores)


def fit(config: RunConfig, runs: Mapping[int, Measured]) -> Costs:
    """Return the costs that runs in lockstep show, by prompts a call; the largest is a batch.

    ``config`` is that of the run with whole batches.
    """
    whole = runs[max(runs)]

    def line(method: str) -> Linear:
        return Linear.through({size: run.median(method) for size, run in runs.items()})

    learn = whole.median("forward_backward") + whole.median("optim_step")
    costs = Costs(
        generate=line("generate"),
        respond=line("respond"),
        judge=line("judge"),
        learn=Linear.through({max(runs): learn}),
        publish=whole.median("publish_weights"),
        load=whole.median("load_weights"),
        weight_bytes=float(whole.summary["weight_sync"]["bytes"]),
    )
    spent = whole.summary["throughput"]["driver_thread_seconds_per_step"]
    call = spent / simulate(config, costs, cores=APART, steps=4).driver_calls
    # The queue's process does for an operation what the driver does for a call.
    costs = replace(costs, driver=call, queue=call)
    latency = _meeting(
        lambda latency: simulate(config, replace(costs, latency=latency), cores=APART, steps=4),
        whole.step_seconds,
        most=LONGEST_LATENCY,
    )
    return replace(costs, latency=latency)


def with_crowding(
    costs: Costs, overlapped: RunConfig, step_seconds: float, *, cores: float
) -> Costs:
    """Return the costs with as much crowding as an overlapped run shows."""
    crowding = _meeting(
        lambda crowding: simulate(overlapped, replace(costs, crowding=crowding), cores=cores),
        step_seconds,
        most=MOST_CROWDING,
    )
    return replace(costs, crowding=crowding)


def _meeting(foretold: Callable[[float], Forecast], seconds: float, *, most: float) -> float:
    """Return the number from 0 to ``most`` with which a step is foretold to take ``seconds``."""
    low, high = 0.0, most
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if foretold(middle).step_seconds > seconds else (middle, high)
    return low


def _one_of_each(config: RunConfig, per_call: int, *, lag: int) -> RunConfig:
    """Return the recipe with one part of each kind."""
    return config.model_copy(
        update={
            "student": config.student.model_copy(update={"replicas": 1, "batch_size": per_call}),
            "teacher": config.teacher.model_copy(update={"replicas": 1}),
            "replay": config.replay.model_copy(update={"max_policy_lag": lag}),
            "learner": config.learner.model_copy(update={"ranks": 1, "steps": STEPS}),
        }
    )


def _named(config: RunConfig) -> str:
    how = "overlapped" if config.replay.max_policy_lag else "in lockstep"
    return f"{how}, {config.student.batch_size} prompts a call"


def _bare(config: RunConfig, name: str, folder: Path) -> RunConfig:
    """Return the recipe as a calibration runs it: nothing but its loops."""
    monitoring = {"port": 0, "role_port": 0, "timeline": True, "report": False, "progress": False}
    return config.model_copy(
        update={
            "name": name,
            "output": folder,
            "existing": "replace",
            "evaluation": config.evaluation.model_copy(update={"every": 0, "generate": False}),
            "checkpoint": config.checkpoint.model_copy(update={"every": 0}),
            "monitoring": config.monitoring.model_copy(update=monitoring),
        }
    )


def run_quietly(config: RunConfig, folder: Path) -> Path:
    """Run a configuration in a process of its own; returns its run folder.

    Raises DependencyError with the last line of its log where it fails.
    """
    recipe, log = folder / f"{config.name}.yaml", folder / f"{config.name}.log"
    recipe.write_text(dump(config), encoding="utf-8")
    code = asyncio.run(_ended([sys.executable, "-m", "orchestration.run", str(recipe)], log))
    if code is None:
        raise KeyboardInterrupt
    if code:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise DependencyError(
            f"the run for a calibration failed: {last[-1] if last else ''}; see {log}"
        )
    return folder / config.name


async def _ended(command: list[str], log: Path) -> int | None:
    """Return the exit code of a command; None: a signal to this process ended it, cleanly."""
    with Processes() as processes:
        processes.start("calibration", command, log)
        _, code = await processes.next()
    return None if processes.signal else code
