"""Our whole loop in a process of its own, and what a steady step of it takes."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "benchmarks" / "loop.yaml"
ISOLATED = ROOT / ".ci" / "isolated"
"""Gives a command a network of its own: a local Ray listens on every interface."""

AROUND = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
"""Ray's workers are nice (15) unless told otherwise: on a shared machine they would stand back for
everybody, and what they are held against would not."""


class Seen(NamedTuple):
    """What a run told of itself."""

    pairs_per_second: float
    """Of the steady steps."""
    response_tokens: float
    """Mean length of y_s, the end of sequence included."""
    summary: dict[str, Any]
    """Of the whole run."""

    @classmethod
    def of(cls, steps: Sequence[dict[str, float]], summary: dict[str, Any]) -> "Seen":
        """Take the lines of `metrics.jsonl` that are counted.

        A step's seconds go from the end of the step before to its own end, its push included.
        """
        seconds = sum(step["seconds"] for step in steps)
        pairs = sum(step["pairs"] for step in steps)
        tokens = sum(step["pairs"] * step["response_length_student"] for step in steps)
        return cls(pairs / seconds, tokens / pairs, summary)

    def busy(self) -> str:
        """Say how much of the time each part worked."""
        time = self.summary["time"]
        shares = {role: t["busy_seconds"] / t["wall_seconds"] for role, t in time.items()}
        return ", ".join(f"{role} {share:.0%}" for role, share in shares.items())


def run_loop(overrides: Sequence[str], *, warm_up: int = 0, left_out: int = 0) -> Seen:
    """Run the recipe off the network, with a Ray of its own; AssertionError where it fails.

    The first ``warm_up`` and the last ``left_out`` steps are not counted.
    """
    with tempfile.TemporaryDirectory() as output:
        command = [ISOLATED, ROOT / ".venv" / "bin" / "python", "-m", "orchestration.run", RECIPE]
        said = subprocess.run(
            [*command, f"output={output}", *overrides],
            cwd=ROOT,
            env={**os.environ, **AROUND},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stdout[-4000:]
        folder = Path(output) / "loop"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        summary = json.loads((folder / "summary.json").read_text())
    return Seen.of(lines[warm_up : len(lines) - left_out], summary)
