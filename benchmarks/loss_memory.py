"""Peak memory of the loss against one with full logits, vocabulary of 128k.

    python -m benchmarks.loss_memory [--runs 3]

From hidden states of 4 096 response tokens (32 pairs, 64 tokens each side, 256 wide, float32) to
DPKD's loss (Eq 9) and back to the gradients of the hidden states and of the output head, which are
in the memory of both. Ours: ``ResponseHead`` with the learner's default. Held against:
``log_softmax`` of all logits. Each in a process of its own; its peak is what the kernel saw above
what was there before.
"""

import subprocess
import sys

import torch
from torch import Tensor, nn

from benchmarks.figures import command_line, in_turns, report
from configs.learner import LearnerConfig
from learner.objectives.dpkd import dpkd
from learner.objectives.sequences import SequenceScores
from learner.response_head import ResponseHead
from tests.learner.memory import growth

VOCABULARY, WIDTH, PAIRS, LENGTH = 131_072, 256, 32, 64


def main() -> int:
    """Measure, or be one of the two that are measured."""
    if sys.argv[1:2] == ["--side"]:
        print(peak_bytes(sys.argv[2]))
        return 0
    runs = command_line("loss_memory", 3, __doc__)
    pairs = in_turns(runs, lambda: _in_a_process("ours"), lambda: _in_a_process("naive"))
    return report("loss_memory", (ours / naive for ours, naive in pairs))


def peak_bytes(side: str) -> int:
    """Return what one loss and its backward pass take at most."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    hidden = torch.randn(2 * PAIRS * LENGTH, WIDTH, requires_grad=True)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=False)
    targets = torch.randint(VOCABULARY, (len(hidden),))
    if side == "ours":
        head = ResponseHead(linear, LearnerConfig().logits_at_once)
        return growth(lambda: _loss(head(hidden, targets)[0]).backward()).peak
    return growth(lambda: _loss(_naive(linear(hidden), targets)).backward()).peak


def _naive(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return logits_NV.log_softmax(-1).gather(1, targets_N[:, None])[:, 0]


def _loss(logprobs_N: Tensor | None) -> Tensor:
    assert logprobs_N is not None
    teacher, student = logprobs_N.view(2, PAIRS, LENGTH)
    lengths = torch.full((PAIRS,), float(LENGTH))
    nothing = torch.zeros(PAIRS, LENGTH)
    sides = [SequenceScores.of(side, nothing - 9, lengths, nothing) for side in (teacher, student)]
    return dpkd(*sides, beta=1.0, length_normalised=True, pair_count=PAIRS)[0]


def _in_a_process(side: str) -> int:
    command = [sys.executable, "-m", "benchmarks.loss_memory", "--side", side]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
