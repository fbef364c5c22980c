"""The share of the quickstart's wall clock during which its sampler stands still to load weights.

    python -m benchmarks.push_pause [--runs 3] [--steps 150]

Each run is a whole quickstart, on Ray, in a process of its own; its two models come from the cache,
if they are there. Counted is what the sampler's clock books as loading weights: everything from the
arrival of a push until it is loaded, the first push included, which goes by vLLM's loader and
teaches the sampler where everything lives; and each proof that is asked for by itself. It is
divided by that clock's whole, from the first prompt to the end of the last evaluation. A student so
small makes the share large: a push costs what its calls cost, and a step does not last.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import report

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Measure; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.push_pause", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="default: 3")
    parser.add_argument("--steps", type=int, default=150, help="default: the recipe's 150")
    options = parser.parse_args()
    return report("push_pause", _shares(options.runs, options.steps))


def _shares(runs: int, steps: int) -> Iterator[float]:
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as output:
            summary = _quickstart(Path(output), steps)
        sampler, pushes = summary["time"]["sampler"], summary["weight_sync"]
        seconds, wall = sampler["busy"]["loading_weights"], sampler["wall_seconds"]
        print(f"{pushes['count']} pushes: {seconds:.2f} s of {wall:.1f} s")
        yield seconds / wall


def _quickstart(output: Path, steps: int) -> dict:
    """Run it; return what its summary says. Raises CalledProcessError, its last words printed."""
    overrides = [f"output={output}", f"learner.steps={steps}"]
    command = [sys.executable, "-m", "orchestration.run", "quickstart", *overrides]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr[-2000:])
        done.check_returncode()
    return json.loads((output / "quickstart" / "summary.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
