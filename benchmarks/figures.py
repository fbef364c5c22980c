"""The figures of `make bench`: each a ratio of two things run side by side, with its bar.

Absolute times mean nothing on a shared machine. What is measured and what it is held against run
in turns, several times; the figure is the median of the ratios, its spread their least and
largest. `benchmarks/results.json` keeps every figure, `docs/performance.md` shows them.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).with_name("results.json")


class Bar(NamedTuple):
    """What a figure is asked to reach."""

    ratio: float
    at_least: bool
    """False: at most."""
    what: str
    """What is divided by what; a cell of the table."""

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is on the right side."""
        return ratio >= self.ratio if self.at_least else ratio <= self.ratio


BARS = {
    "loop_vs_trl_tiny": Bar(
        2.0, True, "pairs/s of the whole loop ÷ prompts/s of TRL: 1.1 M student, 2k vocabulary"
    ),
    "loop_vs_trl_small": Bar(
        2.0, True, "pairs/s of the whole loop ÷ prompts/s of TRL: 10 M student, 32k vocabulary"
    ),
    "sampler": Bar(0.95, True, "sampler's tokens/s ÷ bare vLLM's, the same requests"),
    "kept_full": Bar(
        1.0, True, "sampler's tokens/s with two calls at once ÷ one by one, natural lengths"
    ),
    "learner_step": Bar(
        1.10, False, "seconds of a learner step ÷ a bare torch loop's over the same unpadded tokens"
    ),
    "loss_memory": Bar(
        0.35, False, "peak memory of the loss ÷ with full logits, vocabulary of 128k"
    ),
    "prompt_sharing": Bar(
        1.4, True, "learner's tokens/s with shared ÷ with repeated prompts, four times the response"
    ),
    "push": Bar(0.4, True, "bytes/s of a push ÷ of a plain memory copy"),
    "push_pause": Bar(0.03, False, "share of the quickstart's wall clock that samplers load"),
    "fan_out": Bar(0.5, False, "seconds of a push to seven machines in shards ÷ a copy to each"),
    "overlap": Bar(1.9, True, "speed overlapped ÷ in lockstep, sampling = learning = 1 s"),
    "overlap_ideal": Bar(0.95, True, "speed overlapped ÷ the ideal's"),
    "queue": Bar(20_000, True, "tuples/s through put, lease and ack, 64 a call, over Ray"),
    "memory_growth": Bar(50, False, "MB that queue, ledger and driver grow by over 100 000 tuples"),
    "big_data_seconds": Bar(5, False, "seconds to the first prompt of a file of 1 000 000 rows"),
    "big_data_memory": Bar(500, False, "MB that a file of 1 000 000 rows takes"),
}
"""Every figure and its bar. The last ones are limits of their own, not ratios."""


def command_line(name: str, runs: int, about: str | None) -> int:
    """Return the number of runs that the command line of a benchmark's module asks for.

    ``about`` is the module's docstring, of which ``--help`` shows the first paragraph.
    """
    describe = str(about).partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=describe)
    parser.add_argument("--runs", type=int, default=runs, help=f"default: {runs}")
    return parser.parse_args().runs


def in_turns(
    runs: int, measured: Callable[[], float], held_against: Callable[[], float]
) -> Iterator[tuple[float, float]]:
    """Yield what both give, run after run; whoever goes first changes with each run."""
    for number in range(runs):
        if number % 2:
            against = held_against()
            yield measured(), against
        else:
            ours = measured()
            yield ours, held_against()


def report(name: str, ratios: Iterable[float]) -> int:
    """Print a figure, keep it in `benchmarks/results.json`; returns 1 where it misses its bar.

    Ratios are taken as they come, so that each is printed when it is there.
    """
    bar, seen = BARS[name], []
    for ratio in ratios:
        seen.append(ratio)
        print(f"{name}: run {len(seen)}: {ratio:.4g}", flush=True)
    median = statistics.median(seen)
    module = Path(sys.argv[0]).stem
    words = ("python", "-m", f"benchmarks.{module}", *sys.argv[1:])
    _keep(
        {
            "name": name,
            "ratio": _short(median),
            "bar": bar.ratio,
            "at_least": bar.at_least,
            "runs": len(seen),
            "spread": [_short(min(seen)), _short(max(seen))],
            "command": shlex.join(words),
        }
    )
    held = bar.holds(median)
    print(
        f"{name}: {median:.4g} ({min(seen):.4g} to {max(seen):.4g}, {len(seen)} runs); "
        f"bar: {'at least' if bar.at_least else 'at most'} {bar.ratio:g}"
        f"{'' if held else '  MISSED'}"
    )
    return int(not held)


def kept() -> list[dict]:
    """Return the figures that are kept, in the order of ``BARS``."""
    if not RESULTS.exists():
        return []
    figures: Sequence[dict] = json.loads(RESULTS.read_text())["figures"]
    return sorted(figures, key=lambda figure: list(BARS).index(figure["name"]))


def _keep(figure: dict) -> None:
    others = [each for each in kept() if each["name"] != figure["name"]]
    figures = sorted([*others, figure], key=lambda each: list(BARS).index(each["name"]))
    RESULTS.write_text(json.dumps({"figures": figures}, indent=1) + "\n")


def _short(value: float) -> float:
    return float(f"{value:.4g}")
