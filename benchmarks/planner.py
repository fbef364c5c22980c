"""How well a plan foretells real runs: predicted against measured seconds of a step.

    python benchmarks/planner.py [--recipe quickstart] [--steps 60] [--rounds 4] [--keep FOLDER]

In turns, so that what else the machine does falls on all alike: the calibration's four runs, then
the recipe with one and two samplers, in lockstep and overlapped. Medians over the rounds; exit code
1 where one is off by more than the limit.
"""

import argparse
import itertools
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
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="folder for the runs; one that is there is read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _compare(options, options.keep or Path(folder))


def _compare(options: argparse.Namespace, folder: Path) -> int:
    from configs.load import load
    from orchestration.calibration import calibrations
    from orchestration.checkups_machine import this_machine
    from orchestration.fitting import fit
    from orchestration.simulation import simulate

    cores = this_machine().usable_cores
    real = {case: load(options.recipe, _overrides(*case, options.steps)) for case in CASES}
    kinds = calibrations(real[1, 0])
    seen = _measure({**kinds, **real}, folder, options.rounds)
    costs = fit(kinds, {kind: seen[kind] for kind in kinds}, cores=cores)
    print(costs.as_dict())
    worst = 0.0
    for (samplers, lag), config in real.items():
        took = [run.step_seconds for run in seen[samplers, lag]]
        foretold = simulate(config, costs, cores=cores).step_seconds
        off = foretold / statistics.median(took) - 1
        worst = max(worst, abs(off))
        each = ", ".join(f"{one:.3f}" for one in sorted(took))
        print(f"{samplers} sampler(s), lag {lag}: {foretold:.3f} s foretold, {each}: {off:+.1%}")
    print(f"worst {worst:.1%}; limit {LIMIT:.0%}")
    _fewer_rounds(kinds, real, seen, options.rounds, cores)
    return int(worst > LIMIT)


def _fewer_rounds(kinds: Any, real: Any, seen: Any, rounds: int, cores: float) -> None:
    """Print how well some of the rounds' calibrations alone foretell the same medians."""
    from orchestration.fitting import fit
    from orchestration.simulation import simulate

    took = {case: statistics.median(run.step_seconds for run in seen[case]) for case in real}
    for count in range(1, rounds):
        for chosen in itertools.combinations(range(rounds), count):
            costs = fit(
                kinds, {kind: [seen[kind][n] for n in chosen] for kind in kinds}, cores=cores
            )
            off = [simulate(real[c], costs, cores=cores).step_seconds / took[c] - 1 for c in real]
            print(f"calibrated by rounds {chosen}: worst {max(map(abs, off)):.1%}", flush=True)


def _measure(configs: dict[Any, Any], folder: Path, rounds: int) -> dict[Any, list[Any]]:
    """Run every configuration once a round; one that was run before is read."""
    from orchestration.calibration import measure
    from orchestration.measured_run import Measured

    seen: dict[Any, list[Any]] = {key: [] for key in configs}
    for number in range(rounds):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        for key, config in configs.items():
            name = key if isinstance(key, str) else "samplers-{}-lag-{}".format(*key)
            done = folder / str(number) / name
            known = (done / "summary.json").exists()
            run = Measured(done) if known else measure(config, name, done.parent)
            print(f"round {number}: {name}: {run.step_seconds:.3f} s a step", flush=True)
            seen[key].append(run)
    return seen


def _overrides(samplers: int, lag: int, steps: int) -> list[str]:
    return [
        f"student.replicas={samplers}",
        f"replay.max_policy_lag={lag}",
        f"learner.steps={steps}",
    ]


if __name__ == "__main__":
    sys.exit(main())
