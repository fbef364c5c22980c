"""Calls of a run, measured or simulated, and what passes between one and the next."""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

SKIPPED = 4
"""First calls of each kind, in which engines do what they do only once."""
AFTER = {
    "generate": "load_weights",
    "respond": "load_weights",
    "judge": "generate",
    "forward_backward": "judge",
    "optim_step": "forward_backward",
    "publish_weights": "optim_step",
    "probe": "publish_weights",
    "load_weights": "publish_weights",
}
"""Method → the one that it waits for in lockstep."""


class Call(NamedTuple):
    """One call of a part's method; start and end in seconds."""

    method: str
    start: float
    end: float


def seconds_of(calls: Sequence[Call], method: str) -> float:
    """Return the median seconds of a method's calls; 0: it was not called."""
    took = [call.end - call.start for call in calls if call.method == method]
    return statistics.median(took[SKIPPED:] or took) if took else 0.0


def gap_before(calls: Sequence[Call], method: str) -> float:
    """Return the median seconds from the end of what a method waits for to its beginning.

    Of several calls that wait for one, the first counts; of several that are waited for, the last.
    """
    ends = sorted(call.end for call in calls if call.method == AFTER[method])
    starts = sorted(call.start for call in calls if call.method == method)
    gaps = []
    for end, next_end in pairwise([*ends, float("inf")]):
        first = next((start for start in starts if end <= start <= next_end), None)
        if first is not None:
            gaps.append(first - end)
    return statistics.median(gaps[SKIPPED:] or gaps) if gaps else 0.0
