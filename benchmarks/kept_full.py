"""What it brings that a later call's requests take the places of those that end.

    python -m benchmarks.kept_full [--runs 5]

``StudentSampler.generate`` as in ``benchmarks.sampler``, but with a vocabulary of 64: one token in
64 ends a response of this random model, so lengths are as natural ones are, and few reach their 64
tokens. Eight calls of 32 prompts come from two threads, so that one is at hand while another is
drawn, against the same eight one by one. Weights stay as they are: so it is for negatives that are
drawn by the initial student, by a snapshot, or between two pushes.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from actors.vllm_environment import vllm_environment
from benchmarks.figures import command_line, in_turns, report
from benchmarks.sampler import make_prompts, make_sampler, make_student
from configs.wire import Uid

CALLS, VOCABULARY = 8, 64


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("kept_full", 5, __doc__)
    os.environ.update(vllm_environment(threads=1, kv_cache_gib=1))  # before vLLM is imported
    with tempfile.TemporaryDirectory() as folder:
        make_student(folder, VOCABULARY)
        return report("kept_full", _ratios(runs, make_sampler(folder)))


def _ratios(runs: int, sampler: Any) -> Iterator[float]:
    _rate(sampler, 2)
    rounds = in_turns(runs, lambda: _rate(sampler, 2), lambda: _rate(sampler, 1))
    for together, in_turn in rounds:
        print(f"two calls at once {together:.0f} tokens/s, one {in_turn:.0f}")
        yield together / in_turn


def _rate(sampler: Any, threads: int) -> float:
    """Return tokens/s of all calls, ``threads`` of them at once."""
    sampler._engine._running().reset_prefix_cache()
    calls = [
        [replace(each, uid=Uid(0, each.row, call)) for each in make_prompts(VOCABULARY)]
        for call in range(CALLS)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        draws = list(pool.map(sampler.generate, calls))
    tokens = sum(len(each.response.ids_T) for draw in draws for each in draw.trajectories)
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
