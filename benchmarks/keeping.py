"""What keeping costs: a run with ledger and checkpoints against one without either.

    python benchmarks/keeping.py [--pairs 5] [--steps 120]

Prints pairs per second of both, run alternately in processes of their own, and the ratio's median
and range. The models are those of the quickstart, made once and cached. Exit code 1 where the
median is below the limit.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVERY = 20
"""Steps between checkpoints."""
LIMIT = 0.95
"""Least ratio of speeds, with and without, that is asked for."""


def main() -> int:
    """Measure, or be one of the two runs that are measured."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="times that both are run")
    parser.add_argument("--steps", type=int, default=120, help="learner steps of a run")
    parser.add_argument("--run", choices=("with", "without"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return _run(options.run, options.steps, options.output)
    ratios = [_ratio(options.steps) for _ in range(options.pairs)]
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"with / without: median {median:.3f}, from {low:.3f} to {high:.3f}; limit {LIMIT}")
    return int(median < LIMIT)


def _ratio(steps: int) -> float:
    speed = {}
    for how in ("without", "with"):
        with tempfile.TemporaryDirectory() as output:
            command = [sys.executable, __file__, "--run", how, "--steps", str(steps)]
            subprocess.run(
                [*command, "--output", output], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
            )
            summary = json.loads((Path(output) / how / "summary.json").read_text())
            speed[how] = summary["throughput"]["pairs_per_second"]
    print(f"{speed['without']:.1f} pairs/s without, {speed['with']:.1f} with")
    return speed["with"] / speed["without"]


def _run(how: str, steps: int, output: Path) -> int:
    from configs.load import load
    from orchestration.job import run_job
    from orchestration.ledger import Ledger

    every = EVERY if how == "with" else 0
    if how == "without":
        Ledger._write = lambda *_, **__: None  # type: ignore[method-assign]
        Ledger.check = lambda _: None  # type: ignore[method-assign]
    overrides = [
        *("cluster.local=true", "monitoring.port=0", "evaluation.generate=false"),
        *(f"learner.steps={steps}", f"checkpoint.every={every}", f"name={how}", f"output={output}"),
    ]
    return run_job(load("quickstart", overrides))


if __name__ == "__main__":
    sys.exit(main())
