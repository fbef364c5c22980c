"""Our whole loop against TRL's on-policy `DistillationTrainer`, on this machine's cores.

    make bench-peer
    python -m benchmarks.loop_vs_trl {tiny,small} [--runs 3]

Both distil the same trained teacher into the same trained student, on the same prompts in the same
order, 32 a step, with up to 64 new tokens a response at temperature 1, in float32, with AdamW. A
run is a process of its own, they take turns, and both may use every core. Counted are the steps
after a warm-up, from the end of one to the end of the next: start-up, evaluation and checkpoints
are left out; drawing, scoring by the teacher, learning and handing the weights over are in.

What differs, and stays different:

- TRL is synchronous. Ours is run in lockstep (`replay.max_policy_lag: 0`), which is as exactly
  on-policy as TRL and is the figure, and with a lag of one step, which is printed beside it.
- DPKD learns from two sequences a prompt, y_s and the teacher's y_t; TRL from y_s alone. The ratio
  is of prompts a second, and not scaled for that.
- y_t and log p(y_t) come from the cache, as after the first epoch of any run; TRL needs no y_t.
- TRL takes the divergence of whole distributions at every position, DPKD the log-probabilities of
  the tokens that are there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import in_turns, report
from benchmarks.loop_models import CASES, Case, made, measured_steps, models_in
from benchmarks.loop_run import RECIPE, ROOT, Seen, run_loop
from configs.load import load

PEER = ROOT / ".venv-peer" / "bin" / "python"


def main() -> int:
    """Measure one case; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop_vs_trl")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--runs", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    if not PEER.exists():
        sys.exit("error: TRL is not installed; run make bench-peer first")
    return report(f"loop_vs_trl_{options.case}", ratios(options.case, options.runs))


def ratios(name: str, runs: int) -> Iterator[float]:
    """Yield ours in lockstep ÷ TRL's, run after run; print all that was seen."""
    case, folder = CASES[name], made(name)
    for ours, theirs in in_turns(
        runs, lambda: _ours(case, folder), lambda: trl(case, folder)["prompts_per_second"]
    ):
        yield ours / theirs


def _ours(case: Case, folder: Path) -> float:
    lockstep = ours(case, folder, lag=0)
    ours(case, folder, lag=1)
    return lockstep.pairs_per_second


def ours(case: Case, folder: Path, lag: int) -> Seen:
    """Run ours once and say how it went."""
    # In lockstep one part works at a time, and has both cores.
    threads = [f"{role}.threads={1 if lag else 2}" for role in ("student", "teacher", "learner")]
    seen = run_loop(
        [*measured_steps(case, lag), *models_in(folder), *threads],
        warm_up=case.warm_up,
        left_out=lag,
    )
    assert not seen.summary["teacher_cache"]["misses"], "some y_t was not in the cache"
    print(
        f"  ours, lag {lag}: {seen.pairs_per_second:.1f} pairs/s, {seen.response_tokens:.1f} tokens"
        f" a response; busy: {seen.busy()}",
        flush=True,
    )
    return seen


def trl(case: Case, folder: Path) -> dict[str, Any]:
    """Run TRL once and say how it went."""
    config = load(str(RECIPE), models_in(folder))
    options = {
        "steps": case.steps,
        "warm-up": case.warm_up,
        "batch": config.learner.batch_size,
        "new-tokens": config.student.sampling.max_new_tokens,
        "learning-rate": config.learner.learning_rate,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    said = subprocess.run(
        [PEER, ROOT / "benchmarks" / "peer_trl.py", folder, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-4000:]
    told = json.loads(said.stdout.splitlines()[-1])
    print(
        f"  TRL: {told['prompts_per_second']:.1f} prompts/s, {told['response_tokens']:.1f} tokens "
        f"a response; generating {told['generating_seconds'] / told['step_seconds']:.0%}",
        flush=True,
    )
    return told


if __name__ == "__main__":
    sys.exit(main())
