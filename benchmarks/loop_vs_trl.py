"""Our whole loop against TRL's on-policy `DistillationTrainer`, on this machine's cores.

    make bench-peer
    python -m benchmarks.loop_vs_trl {tiny,small} [--runs 3]

Both distil the same trained teacher into the same trained student, on the same prompts in the same
order, 32 a step, with up to 64 new tokens a response at temperature 1, with AdamW. A run is a
process of its own, they take turns, and both may use every core. Counted are the steps after a
warm-up, from the end of one to the end of the next: start-up, evaluation and checkpoints are left
out; drawing, scoring by the teacher, learning and handing the weights over are in. Both learn at a
rate of 1e-6, so that the student stays what it is and responses are of the same lengths: at 1e-4
TRL's had become a sixth shorter than ours by the steps that are counted.

Each side runs as it is fastest. Of TRL a short try finds how: with one thread or all, in float32
or under autocast to bfloat16. Ours overlapped shares the cores evenly among its three parts, which
work at the same time, and in lockstep each has all of them, since one works at a time; it keeps
the student's weights and every softmax in float32, and multiplies in bfloat16 where it learns
(`learner.matmul_precision`); the teacher scores in bfloat16 (`teacher.dtype`).

What differs, and stays different:

- TRL is synchronous. The figure is of ours overlapped, with a lag of one step
  (`replay.max_policy_lag: 1`), which is what such a system is for. Beside it is printed lockstep,
  which is as exactly on-policy as TRL.
- DPKD learns from two sequences a prompt, y_s and the teacher's y_t; TRL from y_s alone. The ratio
  is of prompts a second, and not scaled for that.
- y_t and log p(y_t) come from the cache, as after the first epoch of any run; TRL needs no y_t.
- TRL takes the divergence of whole distributions at every position, DPKD the log-probabilities of
  the tokens that are there.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import in_turns, report
from benchmarks.loop_models import CASES, Case, made, measured_steps, models_in
from benchmarks.loop_run import AROUND, RECIPE, ROOT, run_loop
from configs.load import load

PEER = ROOT / ".venv-peer" / "bin" / "python"
CORES = len(os.sched_getaffinity(0))
EACH = max(1, CORES // 3)
"""Threads of sampler, teacher and learner, where all of them work. With more threads than cores
every thread waits for the slowest: 11 pairs/s were seen where 69 are with one thread each."""
LEARNING_RATE = 1e-6
PRECISION = ("teacher.dtype=bfloat16", "learner.matmul_precision=medium")


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
    """Yield ours overlapped ÷ TRL's, run after run; print all that was seen."""
    case, folder = CASES[name], made(name)
    print("fills the teacher's cache, and is not counted:", flush=True)
    ours(case, folder, lag=1, threads=EACH, cached=False)
    short = case._replace(steps=2 * case.warm_up)
    print("how TRL is fastest:", flush=True)
    ways = [Way(1, False), *dict.fromkeys(Way(CORES, bf16) for bf16 in (False, True))]
    theirs = max(ways, key=lambda way: trl(short, folder, way))

    def measured() -> float:
        ours(case, folder, lag=0, threads=CORES)  # beside the figure
        return ours(case, folder, lag=1, threads=EACH)

    print("measured:", flush=True)
    for speed, against in in_turns(runs, measured, lambda: trl(case, folder, theirs)):
        yield speed / against


class Way(NamedTuple):
    """How TRL is run."""

    threads: int
    bf16: bool


def ours(case: Case, folder: Path, *, lag: int, threads: int, cached: bool = True) -> float:
    """Run ours once and say how it went; returns pairs a second."""
    settings = [f"{role}.threads={threads}" for role in ("student", "teacher", "learner")]
    seen = run_loop(
        [
            *(*measured_steps(case, lag), *models_in(folder), *settings, *PRECISION),
            f"learner.learning_rate={LEARNING_RATE}",
        ],
        warm_up=case.warm_up,
        left_out=lag,
    )
    assert not (cached and seen.summary["teacher_cache"]["misses"]), "some y_t was not in the cache"
    print(
        f"  ours, lag {lag}, {threads} thread(s) a part: {seen.pairs_per_second:.1f} pairs/s, "
        f"{seen.response_tokens:.1f} tokens a response; busy: {seen.busy()}",
        flush=True,
    )
    return seen.pairs_per_second


def trl(case: Case, folder: Path, way: Way) -> float:
    """Run TRL once and say how it went; returns prompts a second."""
    config = load(str(RECIPE), models_in(folder))
    options = {
        "steps": case.steps,
        "warm-up": case.warm_up,
        "batch": config.learner.batch_size,
        "new-tokens": config.student.sampling.max_new_tokens,
        "learning-rate": LEARNING_RATE,
        "threads": way.threads,
    }
    words = [*(f"--{name}={value}" for name, value in options.items()), *["--bf16"] * way.bf16]
    said = subprocess.run(
        [PEER, ROOT / "benchmarks" / "peer_trl.py", folder, *words],
        env={**os.environ, **AROUND, "OMP_NUM_THREADS": str(way.threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-4000:]
    told = json.loads(said.stdout.splitlines()[-1])
    print(
        f"  TRL, {way.threads} thread(s), {'bfloat16' if way.bf16 else 'float32'}: "
        f"{told['prompts_per_second']:.1f} prompts/s, "
        f"{told['response_tokens']:.1f} tokens a response, {told['longest_of_batch']:.1f} the "
        f"longest of a batch; generating {told['generating_seconds'] / told['step_seconds']:.0%}",
        flush=True,
    )
    return told["prompts_per_second"]


if __name__ == "__main__":
    sys.exit(main())
