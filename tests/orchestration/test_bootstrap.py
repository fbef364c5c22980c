"""Intervals where they are known: constants, one source of variation at a time, coverage."""

import numpy as np
import pytest

from orchestration.bootstrap import bootstrap


def test_a_constant_difference_has_an_interval_that_is_a_point():
    assert bootstrap([np.full(7, 1.5), np.full(3, 1.5)]) == (1.5, 1.5, 1.5)


def test_seeds_weigh_alike_however_many_prompts_they_have():
    assert bootstrap([np.array([0.0]), np.array([3.0, 3.0, 3.0])]).mean == 1.5


def test_prompts_alone_give_the_interval_of_their_mean():
    # 400 prompts of 0 and 2, half each: standard error 1/sqrt(400) = 0.05.
    mean, low, high = bootstrap([np.tile([0.0, 2.0], 200)])
    assert mean == 1.0
    assert low == pytest.approx(1 - 1.96 * 0.05, abs=0.01)
    assert high == pytest.approx(1 + 1.96 * 0.05, abs=0.01)


def test_two_seeds_alone_give_the_extremes_of_the_seeds():
    # A quarter of the draws takes the first seed twice, a quarter the second.
    assert bootstrap([np.zeros(5), np.ones(5)]) == (0.5, 0.0, 1.0)


def test_both_sources_of_variation_add_up():
    generator = np.random.default_rng(0)
    seeds = np.tile([-1.0, 1.0], 50)  # 100 seeds: standard error 0.1
    noise = [seed + 3 * generator.standard_normal(16) for seed in seeds]  # and 3/4/10 of prompts
    mean, low, high = bootstrap(noise)
    expected = 1.96 * np.hypot(0.1, 0.075)
    # Resampling prompts within resampled seeds counts their noise twice: it errs on the safe side.
    assert expected < (high - low) / 2 < 1.96 * np.hypot(0.125, 0.075) * 1.1
    assert low < mean < high


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly():
    values = [np.random.default_rng(seed).normal(size=30) for seed in range(4)]
    assert bootstrap(values) == bootstrap(values)
    first, second = bootstrap(values), bootstrap(values, seed=1)
    assert first.low != second.low
    assert first.low == pytest.approx(second.low, abs=0.03)


@pytest.mark.parametrize(("seeds", "low", "high"), [(5, 0.85, 0.93), (20, 0.91, 0.98)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, low, high):
    """Few seeds make it too narrow, as docs/compare.md says."""
    hits, trials = 0, 300
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        values = [generator.normal() + 2 * generator.standard_normal(16) for _ in range(seeds)]
        interval = bootstrap(values, draws=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert low <= hits / trials <= high
