"""Intervals by a crossed bootstrap: over seeds, and over the prompts that seeds share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 10_000


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[Mapping[int, float]], *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Return the mean over seeds of the means over prompts, with the percentile interval of 95 %.

    ``values`` holds one mapping a seed, from a prompt's row to its score, or to the difference of
    two methods on it, which pairs them by seed and prompt. A row is one and the same prompt in
    every seed that has it.

    A draw takes as many seeds as there are and as many prompts, both with replacement, and the same
    prompts for all of its seeds: what a prompt adds to every seed does not average out over seeds
    (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122). Where seeds have different
    prompts, the prompts drawn are those of any seed, and a seed's mean is over those of its own; a
    seed of which none is drawn stands with its plain mean. The noise that belongs to neither seed
    nor prompt is counted up to three times (Owen 2007): it makes the interval too wide, never too
    narrow. With one seed it knows nothing of how seeds differ.

    >>> bootstrap([{0: 2.0, 1: 2.0}, {0: 2.0}])
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    assert values, "at least one seed"
    assert all(values), "at least one prompt a seed"
    known_SP, values_SP = _table(values)
    means_S = values_SP.sum(axis=1) / known_SP.sum(axis=1)
    # Deviations, so that a constant comes out as itself.
    deviations_SP = np.where(known_SP, values_SP - means_S[:, None], 0.0)
    drawn = np.empty(draws)
    generator = np.random.default_rng(seed)
    count, prompts = known_SP.shape
    chunk = max(1, 4_000_000 // prompts)  # 32 MB of indices at one time
    for begin in range(0, draws, chunk):
        part_D = drawn[begin : begin + chunk]
        seeds_DS = _times_drawn(len(part_D), count, generator)
        prompts_DP = _times_drawn(len(part_D), prompts, generator)
        shifts_DS = (prompts_DP @ deviations_SP.T) / np.maximum(prompts_DP @ known_SP.T, 1)
        part_D[:] = (seeds_DS * (means_S + shifts_DS)).sum(axis=1) / count
    # A bound of 0 is 0, whatever a sum's rounding makes of it: its sign says what excludes 0.
    low, high = np.percentile(drawn, [2.5, 97.5]).round(9) + 0.0
    return Interval(float(means_S.mean()), float(low), float(high))


def _times_drawn(draws: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Return (draws, size): how often each of ``size`` is among as many drawn with replacement."""
    drawn = generator.integers(size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def _table(values: Sequence[Mapping[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (S, P) 1 where a seed has a prompt, else 0; and (S, P) its value there, else 0."""
    columns = {row: column for column, row in enumerate(sorted(set().union(*values)))}
    known_SP = np.zeros((len(values), len(columns)))
    values_SP = np.zeros_like(known_SP)
    for index, of_seed in enumerate(values):
        at = [columns[row] for row in of_seed]
        known_SP[index, at] = 1
        values_SP[index, at] = list(of_seed.values())
    return known_SP, values_SP
