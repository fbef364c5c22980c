"""Log-probabilities from hidden states, and back: time and memory as the vocabulary grows.

    python -m benchmarks.response_head [--device cuda] [--rows 1024] [--width 256] [--runs 3]

``ResponseHead`` with the learner's default, against ``log_softmax`` of all logits (naive), in
turns, at vocabularies of 32k, 128k and 256k; on a GPU in bfloat16, on a CPU in float32. Held
against the device's limit, too: the share of our time that the products of matrices alone take, of
which the head cannot do without three (forward, and back to both of what it multiplies). A table,
and no figure of `make bench`: it is for the machine that it runs on. Not run on a GPU so far.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.figures import in_turns
from configs.learner import LearnerConfig
from learner.response_head import ResponseHead
from tests.learner.memory import growth

VOCABULARIES = (32_768, 131_072, 262_144)


class Case(NamedTuple):
    """One head, and what goes into it."""

    linear: nn.Linear
    hidden_ND: Tensor
    targets_N: Tensor

    def ours(self) -> None:
        """As the learner does it."""
        head = ResponseHead(self.linear, LearnerConfig().logits_at_once)
        logprobs = head(self.hidden_ND, self.targets_N)[0]
        assert logprobs is not None
        logprobs.sum().backward()

    def naive(self) -> None:
        """All logits, and their log-softmax in float32."""
        logprobs = self.linear(self.hidden_ND).float().log_softmax(-1)
        logprobs.gather(1, self.targets_N[:, None]).sum().backward()

    @torch.no_grad()
    def products(self) -> None:
        """Three products of matrices, a row of logits' memory at a time."""
        weight = self.linear.weight
        for rows in self.hidden_ND.split(max(1, LearnerConfig().logits_at_once // len(weight))):
            logits = rows @ weight.T
            _ = logits @ weight
            _ = logits.T @ rows

    def forget(self) -> None:
        """Drop the gradients."""
        self.linear.weight.grad = self.hidden_ND.grad = None


def main() -> None:
    """Print a line a vocabulary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.response_head")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=int, default=1024, help="response tokens, default 1024")
    parser.add_argument("--width", type=int, default=256, help="of hidden states, default 256")
    parser.add_argument("--runs", type=int, default=3, help="default 3")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; leave --device out")
    print("vocabulary | ours, s | ÷ naive | products ÷ ours | peak, MB | ÷ naive")
    for vocabulary in VOCABULARIES:
        case = _case(vocabulary, options.rows, options.width, options.device)
        print(f"{vocabulary:10} | {_line(case, options.runs, options.device)}", flush=True)


def _case(vocabulary: int, rows: int, width: int, device: str) -> Case:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    linear = nn.Linear(width, vocabulary, bias=False, device=device, dtype=dtype)
    hidden = torch.randn(rows, width, device=device, dtype=dtype, requires_grad=True)
    return Case(linear, hidden, torch.randint(vocabulary, (rows,), device=device))


def _line(case: Case, runs: int, device: str) -> str:
    for way in (case.ours, case.naive, case.products):
        _seconds(case, way, device)  # what is done only once
    pairs = list(
        in_turns(
            runs,
            lambda: _seconds(case, case.ours, device),
            lambda: _seconds(case, case.naive, device),
        )
    )
    products = statistics.median(_seconds(case, case.products, device) for _ in range(runs))
    ours = statistics.median(pair[0] for pair in pairs)
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    peak, naive = (_peak(case, way, device) for way in (case.ours, case.naive))
    return (
        f"{ours:7.4f} | {ratio:7.2f} | {products / ours:15.2f} | {peak / 1e6:8.0f} | "
        f"{peak / naive:7.2f}"
    )


def _seconds(case: Case, way: Callable[[], None], device: str) -> float:
    case.forget()
    _wait(device)
    start = time.perf_counter()
    way()
    _wait(device)
    return time.perf_counter() - start


def _peak(case: Case, way: Callable[[], None], device: str) -> int:
    """Return the bytes beyond inputs and weights, their gradients among them."""
    case.forget()
    if device == "cpu":
        return growth(way).peak
    _wait(device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    way()
    _wait(device)
    return torch.cuda.max_memory_allocated() - before


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
