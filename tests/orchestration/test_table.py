"""What a run says at its start and at its end."""

import pytest

from configs.load import load
from configs.models import MakeModel
from orchestration.outline import describe, parameters
from orchestration.table import pushes_in_words, result_table

SUMMARY = {
    "recipe": "tiny",
    "steps": 3,
    "eval": {"before": {"rouge_l": 10.04, "reverse_kl_nats": 2.0}, "after": {"rouge_l": 20.0}},
    "ledger": {"issued": 12, "consumed": 11, "in_flight": 0, "dropped": {"nonfinite": 1}},
    "throughput": {"pairs_per_second": 4.25},
    "weight_sync": {"count": 4, "proved": 4, "verified": True},
    "time": {
        "sampler": {
            "wall_seconds": 8.0,
            "busy_seconds": 6.0,
            "busy": {"generating": 5.0, "loading_weights": 1.0},
            "idle": {"weights": 1.6, "prompts": 0.2, "orders": 0.1, "turn": 0.1},
        },
        "teacher": {"wall_seconds": 0.0, "busy_seconds": 0.0, "busy": {}, "idle": {}},
    },
}


def test_the_table_has_a_row_for_each_model_that_was_evaluated():
    text = result_table(SUMMARY)
    assert "student before" in text
    assert "10.0" in text
    assert "teacher" not in text


def test_behind_the_table_come_the_ledgers_balance_and_where_the_time_went():
    *_, line, times = result_table(SUMMARY).splitlines()
    assert times == (
        "sampler: 75% busy (generating 62%, loading weights 12%); "
        "waits for weights 20%, prompts 2%, orders 1%"
    ), "no word of a role that is not there"
    assert line.startswith("ledger: 12 issued = 11 consumed + 1 dropped + 0 in flight")
    assert "4.2 pairs/s" in line


def test_parameters_of_a_made_model_are_counted_as_gpt2_has_them():
    # 12·2·64² = 98 304 in the blocks and 100·64 = 6 400 in the embedding.
    make = MakeModel(hidden_size=64, layers=2, heads=2)
    assert parameters(make, 100) == 104_704


def test_the_plan_names_objective_lag_and_roles():
    plan = describe(load("quickstart", ["replay.max_policy_lag=2", "objective.beta=3"]))
    assert "Eq 9, beta 3" in plan
    assert "policy lag up to 2" in plan
    assert "1 sampler (vLLM)" in plan


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({}, "lockstep, exactly on-policy"),
        ({"temperature": 1.25}, "lockstep, y_s drawn at temperature 1.25"),
        ({"top_p": 0.9}, "lockstep, y_s drawn at temperature 1 and top-p 0.9"),
    ],
)
def test_the_plan_says_on_policy_only_of_the_student_s_own_distribution(
    sampling: dict[str, float], said: str
):
    overrides = [f"student.sampling.{key}={value}" for key, value in sampling.items()]
    plan = describe(load("quickstart", overrides))
    assert said in plan
    assert ("on-policy" in plan) == (not sampling)


@pytest.mark.parametrize(
    ("proved", "verified", "words"),
    [
        (4, True, "4, every one proved"),
        (3, True, "4, 3 proved and 1 replaced before anybody drew with them"),
        (3, False, "4, 3 proved, NOT the last"),
    ],
)
def test_pushes_are_said_to_be_proved_as_far_as_they_are(proved: int, verified: bool, words: str):
    pushes = {"count": 4, "proved": proved, "verified": verified}
    assert pushes_in_words(pushes) == words
