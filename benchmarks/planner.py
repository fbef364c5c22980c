"""How well a plan foretells real runs: predicted against measured seconds of a step.

    python benchmarks/planner.py [--recipe quickstart] [--steps 60] [--repeats 2]

Calibrates once, as `python -m orchestration.plan` does, then runs the recipe with one and two
samplers, in lockstep and overlapped, in turns. Exit code 1 where a median is off by more than the
limit. On a shared machine each run has its own luck: every single measurement is printed.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
LIMIT = 0.10
CASES = [(samplers, lag) for samplers in (1, 2) for lag in (0, 1)]


def main() -> int:
    """Measure; returns the exit code."""
    from configs.load import load
    from orchestration.calibration import Measured, calibrate
    from orchestration.checkups_machine import this_machine
    from orchestration.simulation import simulate

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    recipes = {case: load(options.recipe, _overrides(*case, options.steps)) for case in CASES}
    cores = this_machine().usable_cores
    with tempfile.TemporaryDirectory() as folder:
        costs = calibrate(recipes[1, 0], Path(folder), print, cores=cores)
        print(costs.as_dict())
        measured: dict[Any, list[float]] = {case: [] for case in CASES}
        for _ in range(options.repeats):
            for case, config in recipes.items():
                measured[case].append(Measured(_run(config, Path(folder))).step_seconds)
    worst = 0.0
    for (samplers, lag), seconds in measured.items():
        foretold = simulate(recipes[samplers, lag], costs, cores=cores).step_seconds
        off = foretold / statistics.median(seconds) - 1
        worst = max(worst, abs(off))
        each = ", ".join(f"{one:.3f}" for one in seconds)
        print(f"{samplers} sampler(s), lag {lag}: {foretold:.3f} s foretold, {each}: {off:+.1%}")
    print(f"worst {worst:.1%}; limit {LIMIT:.0%}")
    return int(worst > LIMIT)


def _overrides(samplers: int, lag: int, steps: int) -> list[str]:
    return [
        f"student.replicas={samplers}",
        f"replay.max_policy_lag={lag}",
        f"learner.steps={steps}",
        "evaluation.generate=false",
        "checkpoint.every=0",
        "monitoring.timeline=true",
        "monitoring.report=false",
        "monitoring.port=0",
        "monitoring.role_port=0",
    ]


def _run(config: Any, folder: Path) -> Path:
    from orchestration.calibration import run_quietly

    name = f"{config.student.replicas}-{config.replay.max_policy_lag}"
    return run_quietly(
        config.model_copy(update={"name": name, "output": folder, "existing": "replace"}), folder
    )


if __name__ == "__main__":
    sys.exit(main())
