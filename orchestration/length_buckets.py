"""Buckets of prompts by the length of their gold responses (DPKD, Tables 4 and 5)."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

from orchestration.prompt_scores import PromptScores


def cuts_of(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the median and the mean, ascending, as first lengths of a bucket; one if equal.

    >>> cuts_of([4, 5, 5, 20])
    (5, 9)
    """
    return tuple(sorted({math.ceil(median(lengths)), math.ceil(fmean(lengths))}))


def bucket_names(cuts: Sequence[int]) -> list[str]:
    """Return what each bucket holds, in words of the gold response.

    >>> bucket_names((30, 70))
    ['under 30', '30 to 69', '70 and more']
    """
    between = [
        f"{low} to {high - 1}" if high > low + 1 else f"{low}" for low, high in pairwise(cuts)
    ]
    return [f"under {cuts[0]}", *between, f"{cuts[-1]} and more"]


def in_buckets(prompts: Sequence[PromptScores], cuts: Sequence[int]) -> list[list[PromptScores]]:
    """Deal prompts to the buckets; those of unknown length are in none."""
    buckets: list[list[PromptScores]] = [[] for _ in range(len(cuts) + 1)]
    for prompt in prompts:
        if prompt.reference_words is not None:
            buckets[sum(prompt.reference_words >= cut for cut in cuts)].append(prompt)
    return buckets
