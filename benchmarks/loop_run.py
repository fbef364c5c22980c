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


class Seen(NamedTuple):
    """What a run told of itself."""

    pairs_per_second: float
    """Of the steady steps."""
    response_tokens: float
    """Mean length of y_s, the end of sequence included."""
    summary: dict[str, Any]

    def share(self, role: str, activity: str) -> float:
        """Return the share of its time that a role spends with one activity."""
        time = self.summary["time"][role]
        return time["busy"].get(activity, 0.0) / time["wall_seconds"]


def run_loop(overrides: Sequence[str], *, warm_up: int = 0, left_out: int = 0) -> Seen:
    """Run the recipe off the network, with a Ray of its own; AssertionError where it fails.

    The first ``warm_up`` and the last ``left_out`` steps are not counted.
    """
    with tempfile.TemporaryDirectory() as output:
        # A local Ray listens on every interface: .ci/isolated gives it a network of its own.
        command = [ROOT / ".ci" / "isolated", ROOT / ".venv" / "bin" / "python"]
        words = ["-m", "orchestration.run", RECIPE, f"output={output}", *overrides]
        around = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        said = subprocess.run(
            [*command, *words],
            cwd=ROOT,
            env=around,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stdout[-4000:]
        folder = Path(output) / "loop"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        summary = json.loads((folder / "summary.json").read_text())
    pairs = summary["ledger"]["consumed"] / len(lines)
    counted = lines[warm_up : len(lines) - left_out]
    lengths = [line["response_length_student"] for line in counted]
    return Seen(pairs / steady_seconds(counted), sum(lengths) / len(lengths), summary)


def steady_seconds(lines: Sequence[dict[str, float]]) -> float:
    """Return the mean seconds of the steps that these lines of `metrics.jsonl` tell of.

    A step's seconds go from the end of the step before to its own end, its push included.
    """
    return sum(line["seconds"] for line in lines) / len(lines)
