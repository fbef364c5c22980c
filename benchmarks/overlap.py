"""What overlapping gains where sampling and learning take a second each.

    python -m benchmarks.overlap [--runs 3]

The real pipeline, queue, ledger and weight hand-over on a real Ray; engines that sleep: a second to
draw a batch, a second to learn from one, nothing to judge. 40 steps in lockstep
(``replay.max_policy_lag`` 0) and 40 overlapped (1), from the first prompt to the last step.
``overlap`` is the ratio of their speeds. ``overlap_ideal`` is how much of the ideal's speed is
reached overlapped: 41 s, a second to draw the first batch and one a step.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import command_line, in_turns, report
from benchmarks.idle_parts import Learner, Prompts, Sampler, Teacher
from configs.load import load
from configs.run import RunConfig
from configs.wire import Draw, PackedTuple, Prompt
from orchestration.ray_auth import settle_authentication

STEPS = 40
SECONDS = 1.0
"""Of drawing a batch, and of learning from one."""


class SleepingSampler(Sampler):
    """Draws in its sleep."""

    def generate(self, prompts: list[Prompt]) -> Draw:
        """Sleep, and answer with a trajectory a prompt."""
        time.sleep(SECONDS)
        return super().generate(prompts)


class SleepingLearner(Learner):
    """Learns in its sleep."""

    def forward_backward(
        self, places: list[tuple[int, int]], *batches: list[PackedTuple]
    ) -> dict[str, float]:
        """Sleep over a batch."""
        time.sleep(SECONDS)
        return super().forward_backward(places, *batches)


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("overlap", 3, __doc__)
    with tempfile.TemporaryDirectory() as folder:
        times = list(
            in_turns(
                runs, lambda: _seconds(Path(folder), lag=1), lambda: _seconds(Path(folder), lag=0)
            )
        )
    missed = report("overlap", (lockstep / overlapped for overlapped, lockstep in times))
    ideal = (STEPS + 1) * SECONDS
    return missed | report("overlap_ideal", (ideal / overlapped for overlapped, _ in times))


def _seconds(folder: Path, *, lag: int) -> float:
    """Return how long ``STEPS`` steps take."""
    config = load("quickstart", [f"replay.max_policy_lag={lag}", f"learner.steps={STEPS}"])
    settle_authentication(config.cluster)  # before Ray is imported
    from orchestration.launcher import make_launcher
    from orchestration.ledger import Ledger

    with (
        make_launcher(config.cluster, "overlap") as launcher,
        tempfile.NamedTemporaryFile(dir=folder, suffix=".jsonl") as events,
        Ledger(Path(events.name)) as ledger,
    ):
        return asyncio.run(_run(config, launcher, ledger))


async def _run(config: RunConfig, launcher: Any, ledger: Any) -> float:
    from orchestration.pipeline import Pipeline
    from orchestration.replay import ReplayQueue

    roles = {
        "sampler": launcher.role("sampler-0", SleepingSampler),
        "teacher": launcher.role("teacher-0", Teacher),
        "learner": launcher.role("learner-0", SleepingLearner),
        "queue": launcher.role("queue", lambda: ReplayQueue(config.replay), asynchronous=True),
    }
    for role in roles.values():
        await role.call("build")
    pipeline = Pipeline(config, _parts(roles, ledger), evaluate=_never, keep=_never, regroup=_pass)
    start = time.monotonic()
    await pipeline.run()
    seconds = time.monotonic() - start
    assert pipeline.step == STEPS
    for role in roles.values():
        role.kill()
    return seconds


def _parts(roles: dict[str, Any], ledger: Any) -> Any:
    from orchestration.learner_group import LearnerGroup
    from orchestration.parts import Parts
    from orchestration.simulated_parts import SimulatedRecorder, SimulatedSupervisor
    from orchestration.weight_sync import WeightSync

    learner = LearnerGroup([roles["learner"]])
    samplers: Sequence[Any] = [roles["sampler"]]
    made: dict[str, Any] = {
        "prompts": Prompts(),
        "samplers": samplers,
        "teachers": [roles["teacher"]],
        "queue": roles["queue"],
        "learner": learner,
        "sync": WeightSync(learner, samplers),
        "ledger": ledger,
        "recorder": SimulatedRecorder(),
        "supervisor": SimulatedSupervisor(),
    }
    return Parts(**made)


async def _pass(step: int) -> None:
    """Let the samplers stay who they are."""


async def _never(step: int) -> None:
    raise AssertionError(f"nothing is due behind step {step}")


if __name__ == "__main__":
    sys.exit(main())
