"""What driver and queue grow by while 100 000 tuples pass through a run.

    python -m benchmarks.memory_growth [--runs 3]

The real pipeline over a real Ray: slots, ledger, recorder, metrics and run folder in this process,
the replay queue in its actor; sampler, teacher and learner are actors, too, which do no work. Told
is the growth of the resident memory of both processes together, from tuple 10 000 to 110 000.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import idle_parts
from benchmarks.figures import command_line, report
from benchmarks.made_tuples import BATCH
from benchmarks.processes import kilobytes
from configs.run import RunConfig
from orchestration.ray_auth import settle_authentication
from orchestration.replay import ReplayQueue
from orchestration.simulated_parts import SimulatedSupervisor

FROM, TO = 10_000, 110_000
"""Tuples learned from."""


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("memory_growth", 3, "MB that queue and driver grow by over 100 000 tuples")
    with tempfile.TemporaryDirectory() as folder:
        configs = [_config(Path(folder), run) for run in range(runs)]
        settle_authentication(configs[0].cluster)  # before Ray is imported
        return report("memory_growth", measure(configs))


def measure(configs: list[RunConfig]) -> Iterator[float]:
    """Yield the growth of every run, each on a queue of its own."""
    from orchestration.launcher import RayLauncher

    with RayLauncher(configs[0].cluster, f"memory-growth-{os.getpid()}") as launcher:
        for config in configs:
            seen = asyncio.run(_run(config, launcher))
            early, late = (seen[step] for step in sorted(seen))
            grown = {role: (late[role] - early[role]) / 1000 for role in late}
            print(", ".join(f"{role}: {megabytes:+.1f} MB" for role, megabytes in grown.items()))
            yield sum(grown.values())


def _config(folder: Path, run: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": f"run-{run}",
            "output": folder,
            "student": {"model": "none", "batch_size": BATCH},
            "teacher": {"model": "none"},
            "learner": {"batch_size": BATCH, "steps": -(-TO // BATCH)},
            "replay": {"max_policy_lag": 1},
            "cluster": {"address": "local"},
            "monitoring": {"port": 0, "role_port": 0},
        }
    )


async def _run(config: RunConfig, launcher: Any) -> dict[int, dict[str, int]]:
    """Run a pipeline to its end; returns the kilobytes of both processes at two steps."""
    from orchestration.exporter import MetricsHub
    from orchestration.learner_group import LearnerGroup
    from orchestration.ledger import Ledger
    from orchestration.parts import Parts
    from orchestration.pipeline import Pipeline
    from orchestration.progress import Progress
    from orchestration.recorder import Recorder
    from orchestration.run_folder import RunFolder
    from orchestration.weight_sync import WeightSync

    sampler, teacher, learner = (
        launcher.role(name, getattr(idle_parts, name.capitalize()))
        for name in ("sampler", "teacher", "learner")
    )
    queue = launcher.role("queue", partial(ReplayQueue, config.replay), asynchronous=True)
    roles = (sampler, teacher, learner, queue)
    await asyncio.gather(*(role.call("build") for role in roles))
    await queue.is_alive(60)  # now it is known where it runs
    group, folder = LearnerGroup([learner]), RunFolder(config)
    hub, seen = MetricsHub(config.monitoring, folder.path), {}

    async def look(step: int) -> None:
        if step in (-(-FROM // BATCH), config.learner.steps - 1):
            pids = {"driver": os.getpid(), "queue": queue.process.pid}
            seen[step] = {role: kilobytes(pid, "VmRSS") for role, pid in pids.items()}

    with Ledger(folder.path / "events.jsonl") as ledger:
        made: dict[str, Any] = {
            "prompts": idle_parts.Prompts(),
            "samplers": [sampler],
            "teachers": [teacher],
            "queue": queue,
            "learner": group,
            "sync": WeightSync(group, [sampler]),
            "ledger": ledger,
            "recorder": Recorder(hub, Progress(sys.stdout), ledger, folder),
            "supervisor": SimulatedSupervisor(),
        }
        parts = Parts(**made)
        await parts.sync.push()
        await Pipeline(config, parts, evaluate=look, keep=look, regroup=look).run()
        ledger.check()
    hub.close()
    await asyncio.gather(*(role.stop() for role in roles))
    return seen


if __name__ == "__main__":
    sys.exit(main())
