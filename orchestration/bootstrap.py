"""Intervals by a hierarchical bootstrap: over seeds, and over prompts within a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 10_000


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[np.ndarray], *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return the mean over seeds of the means over prompts, with the percentile interval of 95 %.

    ``values`` holds one (P,) array a seed, P >= 1 of its own: a score of every prompt, or the
    difference of two methods on it, which pairs them by seed and prompt. A draw takes as many
    seeds as there are, with replacement, then from each of them as many prompts as it has, with
    replacement (Davison & Hinkley 1997, section 3.8). With one seed the interval knows nothing
    of how seeds differ.

    >>> bootstrap([np.array([2.0, 2.0]), np.array([2.0])])
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    assert values, "at least one seed"
    assert all(len(of_seed) for of_seed in values), "at least one prompt a seed"
    generator = np.random.default_rng(seed)
    chosen_DS = generator.integers(len(values), size=(draws, len(values)))
    means_DS = np.empty(chosen_DS.shape)
    for index, of_seed in enumerate(values):
        places = chosen_DS == index
        means_DS[places] = _resampled_means(of_seed, int(places.sum()), generator)
    low, high = np.percentile(means_DS.mean(axis=1), [2.5, 97.5])
    return Interval(float(np.mean([v.mean() for v in values])), float(low), float(high))


def _resampled_means(
    values_P: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Return (count,) means of ``values_P`` drawn from itself with replacement."""
    size = len(values_P)
    means = np.empty(count)
    chunk = max(1, 4_000_000 // size)  # 32 MB of indices at one time
    for begin in range(0, count, chunk):
        part = means[begin : begin + chunk]
        part[:] = values_P[generator.integers(size, size=(len(part), size))].mean(axis=1)
    return means
