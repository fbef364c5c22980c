"""What sharing prompts gains: the learner's tokens per second, prompts four times the responses.

    python -m benchmarks.prompt_sharing [--runs 9]

Two of the real learner, on the same 32 pairs and from the same weights, but for
``learner.share_prompts``: with it x, y_t and y_s are one sequence, in which x is computed once.
Tokens are those of the pairs' sequences, prompts counted for each, on both sides. A student of 5 M
parameters with a vocabulary of 8k, prompts of 128 and responses of 32 tokens in the mean, one
thread.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.figures import command_line, in_turns, report
from benchmarks.learner_step import our_step
from benchmarks.learner_work import save_student, tuples

VOCABULARY = 8_000


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("prompt_sharing", 9, __doc__)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        save_student(model, vocabulary=VOCABULARY, hidden=256, layers=4)
        pairs = tuples(32, vocabulary=VOCABULARY, prompt=128, response=32, spread=0.4)
        shared, repeated = (our_step(model, pairs, share_prompts=share) for share in (True, False))
        for warm_up in (shared, repeated):
            warm_up()
        return report("prompt_sharing", (b / a for a, b in in_turns(runs, shared, repeated)))


if __name__ == "__main__":
    sys.exit(main())
