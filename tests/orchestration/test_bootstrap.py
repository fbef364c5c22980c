"""Intervals where they are known: constants, one source of variation at a time, coverage."""

from collections.abc import Iterable

import numpy as np
import pytest

from orchestration.bootstrap import bootstrap


def _shared(values: Iterable[Iterable[float]]) -> list[dict[int, float]]:
    """Return each seed's values as those of prompts 0, 1, ..., which all seeds share."""
    return [dict(enumerate(map(float, of_seed))) for of_seed in values]


def _apart(values: Iterable[np.ndarray]) -> list[dict[int, float]]:
    """Return each seed's values as those of prompts of its own."""
    return [
        {1000 * seed + row: float(value) for row, value in enumerate(of_seed)}
        for seed, of_seed in enumerate(values)
    ]


def test_a_constant_difference_has_an_interval_that_is_a_point():
    assert bootstrap(_shared([np.full(7, 1.5), np.full(3, 1.5)])) == (1.5, 1.5, 1.5)


def test_seeds_weigh_alike_however_many_prompts_they_have():
    assert bootstrap([{0: 0.0}, {0: 3.0, 1: 3.0, 2: 3.0}]).mean == 1.5


def test_prompts_alone_give_the_interval_of_their_mean():
    # 400 prompts of 0 and 2, half each: standard error 1/sqrt(400) = 0.05.
    mean, low, high = bootstrap(_shared([np.tile([0.0, 2.0], 200)]))
    assert mean == 1.0
    assert low == pytest.approx(1 - 1.96 * 0.05, abs=0.01)
    assert high == pytest.approx(1 + 1.96 * 0.05, abs=0.01)


def test_seeds_that_agree_on_every_prompt_do_not_narrow_the_interval():
    # Four seeds say of 400 prompts what one says: the standard error stays 0.05.
    _, low, high = bootstrap(_shared([np.tile([0.0, 2.0], 200)] * 4))
    assert (high - low) / 2 == pytest.approx(1.96 * 0.05, abs=0.01)


def test_one_prompt_of_many_is_no_difference_however_many_seeds_agree_on_it():
    # It is in none of (1 - 1/50)^50, a third, of the draws.
    _, low, high = bootstrap(_shared([[7.0] + [0.0] * 49] * 5))
    assert low == 0.0
    assert high > 0.14


def test_a_bound_of_zero_is_exactly_zero():
    # The mean is 100/27, no binary fraction: its sum with deviations is 4e-16 off where it is 0.
    values = np.array([100.0] + [0.0] * 26)
    assert str(bootstrap(_shared([values])).low) == "0.0"
    assert str(bootstrap(_shared([-values])).high) == "0.0"


def test_a_seed_without_a_drawn_prompt_stands_with_its_mean():
    # The second seed's one prompt is in two of three draws: its mean is 6 with it or without.
    assert bootstrap([{0: 6.0, 1: 6.0}, {2: 6.0}]) == (6.0, 6.0, 6.0)


def test_the_order_of_a_seeds_prompts_does_not_count():
    values = _shared(np.random.default_rng(0).normal(size=(3, 30)))
    turned = [dict(reversed(of_seed.items())) for of_seed in values]
    assert bootstrap(turned) == pytest.approx(bootstrap(values))


def test_two_seeds_alone_give_the_extremes_of_the_seeds():
    # A quarter of the draws takes the first seed twice, a quarter the second.
    assert bootstrap(_shared([np.zeros(5), np.ones(5)])) == (0.5, 0.0, 1.0)


def test_both_sources_of_variation_add_up():
    generator = np.random.default_rng(0)
    seeds = np.tile([-1.0, 1.0], 50)  # 100 seeds: standard error 0.1
    noise = [seed + 3 * generator.standard_normal(16) for seed in seeds]  # and 3/4/10 of prompts
    mean, low, high = bootstrap(_apart(noise))
    expected = 1.96 * np.hypot(0.1, 0.075)
    # The noise of prompts that no two seeds share counts three times: it errs on the safe side.
    assert expected < (high - low) / 2 < 1.96 * np.hypot(0.1, 0.075 * 3**0.5) * 1.1
    assert low < mean < high


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly():
    values = _shared(np.random.default_rng(seed).normal(size=30) for seed in range(4))
    assert bootstrap(values) == bootstrap(values)
    first, second = bootstrap(values), bootstrap(values, seed=1)
    assert first.low != second.low
    assert first.low == pytest.approx(second.low, abs=0.03)


@pytest.mark.parametrize(("seeds", "low", "high"), [(5, 0.87, 0.95), (20, 0.93, 0.98)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, low, high):
    """Few seeds make it too narrow, as docs/compare.md says."""
    hits, trials = 0, 300
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        values = [generator.normal() + 2 * generator.standard_normal(16) for _ in range(seeds)]
        interval = bootstrap(_apart(values), draws=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert low <= hits / trials <= high


@pytest.mark.parametrize(("seeds", "of_seed"), [(10, 0.1), (20, 0.3)])
def test_the_interval_covers_the_truth_where_a_prompt_is_as_hard_for_every_seed(seeds, of_seed):
    """Prompts drawn anew within each seed cover it in six of ten experiments."""
    hits, trials = 0, 400
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        effects_S1 = of_seed * generator.standard_normal((seeds, 1))
        effects_P = generator.standard_normal(40)
        noise_SP = 0.5 * generator.standard_normal((seeds, 40))
        interval = bootstrap(_shared(effects_S1 + effects_P + noise_SP), draws=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 0.92 <= hits / trials <= 0.97
