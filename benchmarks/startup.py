"""Where the seconds go from the command to the first step of the quickstart, its models cached.

    python -m benchmarks.startup [--runs 5]

Each run is the real command in a process of its own with a Ray of its own; this module stands
around its stages with a watch. Medians, and least and most.
"""

import asyncio
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import command_line

ROOT = Path(__file__).parents[1]
STAGES = {
    "imports": "interpreter, imports, the recipe",
    "data": "data, tokenizer",
    "ray": "a local Ray",
    "models": "finding the cached models",
    "parts": "placing the parts; their imports, models and engines, which generate once",
    "push": "the first weight push, which finds out where weights go",
    "evaluation": "the student and the teacher before",
}
"""What is timed, in order."""


def main() -> int:
    """Measure, or be what is measured."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(_one(sys.argv[2])))
        return 0
    runs = command_line("startup", 5, __doc__)
    seen = [_in_a_process() for _ in range(runs)]
    for stage in (*STAGES, "all"):
        values = sorted(run[stage] for run in seen)
        median = statistics.median(values)
        says = STAGES.get(stage, "until the first prompt is issued")
        print(f"{stage:12} {median:6.2f} s ({values[0]:.2f} to {values[-1]:.2f})  {says}")
    return 0


def _in_a_process() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as output:
        command = [ROOT / ".ci" / "isolated", sys.executable, "-m", "benchmarks.startup", "--one"]
        done = subprocess.run(
            [*command, output], cwd=ROOT, check=True, capture_output=True, text=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def _one(output: str) -> dict[str, float]:
    """Run until the first prompt is issued; returns seconds by stage."""
    born = psutil.Process().create_time()
    from configs.load import load
    from orchestration.ray_auth import settle_authentication

    overrides = (f"output={output}", "learner.steps=1", "monitoring.port=0", "evaluation.samples=1")
    config = load("quickstart", [*overrides, "monitoring.report=false"])
    settle_authentication(config.cluster)
    from orchestration import job
    from orchestration.examiner import Examiner
    from orchestration.launcher import RayLauncher
    from orchestration.pipeline import Pipeline
    from orchestration.stages import Stages
    from orchestration.weight_sync import WeightSync

    seen = {"imports": time.time() - born}
    from orchestration import session

    for owner, name, stage in (
        (job, "open_tokenizer", "data"),
        (job, "open_prompts", "data"),
        (RayLauncher, "__enter__", "ray"),
        (Stages, "inputs", "models"),
        (session, "muster", "parts"),
        (WeightSync, "push", "push"),
        (Examiner, "look", "evaluation"),
    ):
        setattr(owner, name, _timed(getattr(owner, name), stage, seen))
    turn = Pipeline.run

    async def begins(pipeline: Pipeline) -> None:
        seen.setdefault("all", time.time() - born)
        await turn(pipeline)

    Pipeline.run = begins  # type: ignore[method-assign]
    job.run_job(config)
    return seen


def _timed(function: Callable[..., Any], stage: str, seen: dict[str, float]) -> Callable[..., Any]:
    """Book what passes in ``function`` before the loops begin to turn."""

    def book(began: float) -> None:
        if "all" not in seen:
            seen[stage] = seen.get(stage, 0.0) + time.monotonic() - began

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        began = time.monotonic()
        answer = function(*args, **named)
        if asyncio.iscoroutine(answer):
            return _awaited(answer, began)
        book(began)
        return answer

    async def _awaited(answer: Any, began: float) -> Any:
        try:
            return await answer
        finally:
            book(began)

    return call


if __name__ == "__main__":
    sys.exit(main())
