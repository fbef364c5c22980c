import re
from pathlib import Path

import pytest

from configs.metrics import (
    CATALOGUE,
    METRICS,
    QUEUE_STATISTICS,
    STATISTICS,
    markdown_table,
    series_of,
)

SUFFIXES = ("_total", "_info")


def test_docs_hold_the_generated_table() -> None:
    docs = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert docs.read_text() == markdown_table(), "run: python -m configs.metrics > docs/metrics.md"


def test_keys_and_names_are_unique_and_well_formed() -> None:
    assert len(CATALOGUE) == len(METRICS) == len({metric.name for metric in METRICS})
    for metric in METRICS:
        assert re.fullmatch(r"dpkd_[a-z][a-z0-9_]*", metric.name), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_info") == (metric.kind == "info")
        assert not metric.unit or metric.name.removesuffix("_total").endswith(metric.unit)
        assert metric.help.endswith("."), metric.key


def test_units_are_base_units() -> None:
    units = {metric.unit for metric in METRICS}
    assert units == {"", "seconds", "bytes", "nats", "ratio", "tokens", "tuples", "steps", "values"}


def test_histograms_and_only_they_have_ascending_buckets() -> None:
    for metric in METRICS:
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.key
        assert list(metric.buckets) == sorted(set(metric.buckets))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("loss", "dpkd_loss"),
        ("reverse_kl_k1", "dpkd_reverse_kl_k1_nats"),
        ("preference_accuracy", "dpkd_preference_accuracy_ratio"),
        ("nonfinite", "dpkd_nonfinite_values_total"),
        ("busy_seconds", "dpkd_busy_seconds_total"),
        ("dropped", "dpkd_dropped_tuples_total"),
        ("policy_lag", "dpkd_policy_lag_steps"),
        ("sync_seconds", "dpkd_sync_seconds"),
        ("build", "dpkd_build_info"),
    ],
)
def test_names_are_prefix_key_unit_and_kind(key, name) -> None:
    assert CATALOGUE[key].name == name


def test_every_statistic_of_the_learner_has_a_series() -> None:
    learner = """
        loss loss_preference loss_lm loss_sft reward_teacher reward_student reward_margin
        preference_accuracy reverse_kl_k1 reverse_kl_k3 reverse_kl_per_token
        reverse_kl_first_token forward_kl_first_token logprob_drift grad_norm learning_rate step
        pairs tokens nonfinite response_length_teacher response_length_student policy_lag_mean
        policy_lag_max seconds lag
    """.split()
    for statistic in learner:
        key, labels = series_of(statistic)
        assert labels.keys() == CATALOGUE[key].labels.keys(), statistic
    with pytest.raises(KeyError, match=r"'sharpe_ratio' is not in the catalogue"):
        series_of("sharpe_ratio")


def test_the_tables_of_statistics_name_series_that_exist() -> None:
    for key, labels in [*STATISTICS.values(), *QUEUE_STATISTICS.values()]:
        declared = CATALOGUE[key].labels
        assert labels.keys() == declared.keys()
        assert all(value in declared[label] for label, value in labels.items())


def test_the_margin_carries_its_caveat() -> None:
    text = CATALOGUE["reward_margin"].help
    assert "-beta(KL(p||q) + KL(q||p))" in text
    assert "not 'better' by itself" in text
