"""One learning step on plain torch: the loss by hand, whatever the cut."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from configs.metrics import CATALOGUE, series_of
from configs.objective import DpkdConfig, ObjectiveConfig, SftConfig
from configs.objectives.divergence import AklConfig, GkdConfig, KdConfig, ReverseKlConfig
from configs.objectives.policy_gradient import MiniLlmConfig, OpdConfig
from configs.objectives.preference import (
    CpoConfig,
    DadpoConfig,
    DdpoConfig,
    IpoConfig,
    PladConfig,
    SimpoConfig,
)
from configs.objectives.supervised import SeqKdConfig
from configs.wire import PreferenceTuple, Response
from learner.step import forward_backward, gold_nll
from tests.learner.learner_builders import preference_tuples, tuples_for
from tests.learner.torch_engine import TorchEngine, naive_logprobs


def naive_step(engine: TorchEngine, tuples: list[PreferenceTuple]) -> dict[str, float]:
    """Write out Eq 9 at beta 2, and what is said about it, pair by pair."""
    names = "loss reward_teacher reward_student reverse_kl_k1 reverse_kl_k3".split()
    total = dict.fromkeys(names, 0.0)
    drift = 0.0
    for item in tuples:
        rewards = []
        for response in (item.teacher_response, item.student_response):
            assert response is not None and response.teacher_logprobs_T is not None
            log_q_T = naive_logprobs(engine, item, response)
            log_ratio_T = log_q_T - torch.from_numpy(response.teacher_logprobs_T)
            rewards.append(2.0 * log_ratio_T.mean())
            if response.behaviour_logprobs_T is not None:
                behaviour_T = torch.from_numpy(response.behaviour_logprobs_T)
                drift = max(drift, (log_q_T - behaviour_T).abs().max().item())
                total["reverse_kl_k1"] += log_ratio_T.sum().item() / len(tuples)
                k3_T = (-log_ratio_T).exp() - 1 + log_ratio_T
                total["reverse_kl_k3"] += k3_T.sum().item() / len(tuples)
        loss = -F.logsigmoid(rewards[0] - rewards[1]) / len(tuples)
        loss.backward()
        values = (loss, rewards[0] / len(tuples), rewards[1] / len(tuples))
        for name, value in zip(names, values, strict=False):
            total[name] += value.item()
    return total | {"logprob_drift": drift}


def test_a_step_is_eq_9_written_out_pair_by_pair() -> None:
    tuples = preference_tuples(5)
    expected_engine, engine = TorchEngine(), TorchEngine()
    expected = naive_step(expected_engine, tuples)
    statistics = forward_backward(engine, tuples, DpkdConfig(beta=2.0), token_budget=10**6)
    assert {name: statistics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    for actual, wanted in zip(engine.gradients(), expected_engine.gradients(), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)


OBJECTIVES: list[ObjectiveConfig] = [
    DpkdConfig(lm_weight=0.5),
    DpkdConfig(level="token"),
    DpkdConfig(level="token", actions="sampled", states="student", lm_weight=0.5),
    IpoConfig(),
    CpoConfig(),
    SimpoConfig(),
    PladConfig(),
    PladConfig(form="margin", length_normalised=True),
    DadpoConfig(lm_weight=0.5),
    DdpoConfig(),
    SftConfig(lm_weight=0.5),
    SeqKdConfig(),
    KdConfig(lm_weight=0.5),
    ReverseKlConfig(),
    GkdConfig(lm_weight=0.5),
    AklConfig(states="student"),
    MiniLlmConfig(teacher_share=0.4, lm_weight=0.5),
    MiniLlmConfig(teacher_share=0.4, single_step=False),
    OpdConfig(clip=0.2),
]


def named(objective: ObjectiveConfig) -> str:
    """Return the type and what was set, for the names of test cases."""
    said = [str(getattr(objective, name)) for name in sorted(objective.model_fields_set)]
    return "-".join([objective.type, *said])


def test_every_objective_of_the_configuration_is_learned_here() -> None:
    (union, _) = get_args(ObjectiveConfig)
    assert {type(objective) for objective in OBJECTIVES} == set(get_args(union))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_loss_and_gradient_do_not_depend_on_the_cut(objective: ObjectiveConfig) -> None:
    tuples = tuples_for(objective, 7, corpus=True)
    whole, pieces = TorchEngine(), TorchEngine()
    expected = forward_backward(whole, tuples, objective, token_budget=10**6)
    statistics = forward_backward(pieces, tuples, objective, token_budget=1)
    assert pieces.last == [False] * 6 + [True] and whole.last == [True]
    assert statistics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert expected["loss"] != 0 and expected["nonfinite"] == 0
    assert max(gradient.abs().max().item() for gradient in whole.gradients()) > 1e-3
    for actual, wanted in zip(pieces.gradients(), whole.gradients(), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)
    for statistic in statistics:
        assert series_of(statistic)[0] in CATALOGUE, statistic


WHOLE = {"pairs", "tokens", "logprob_drift", "policy_lag_mean", "policy_lag_max"}
WHOLE |= {"response_length_teacher", "response_length_student"}
"""Statistics that every rank knows, or maxima."""


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_the_shares_of_two_ranks_add_up(objective: ObjectiveConfig) -> None:
    tuples = tuples_for(objective, 5)
    whole = forward_backward(TorchEngine(), tuples, objective, token_budget=60)
    shares = [
        forward_backward(TorchEngine(rank=r, world_size=2), tuples, objective, token_budget=60)
        for r in (0, 1)
    ]
    assert list(shares[0]) == list(shares[1]) == list(whole)  # ranks reduce in this order
    for name in set(whole) - WHOLE:
        total = shares[0][name] + shares[1][name]
        assert total == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name


def test_the_total_loss_adds_the_weighted_language_model_loss() -> None:
    statistics = forward_backward(
        TorchEngine(), preference_tuples(4), DpkdConfig(lm_weight=0.25), token_budget=10**6
    )
    preference, lm = statistics["loss_preference"], statistics["loss_lm"]
    assert lm > 1.0
    assert statistics["loss"] == pytest.approx(preference + 0.25 * lm, rel=1e-6)


def test_counts_lengths_and_lag_are_those_of_the_whole_batch() -> None:
    tuples = preference_tuples(3)
    lengths = {
        side: [len(getattr(item, f"{side}_response").ids_T) for item in tuples]
        for side in ("teacher", "student")
    }
    statistics = forward_backward(TorchEngine(step=4), tuples, DpkdConfig(), token_budget=10**6)
    assert statistics["pairs"] == 3
    assert statistics["tokens"] == sum(lengths["teacher"]) + sum(lengths["student"])
    assert statistics["response_length_student"] == sum(lengths["student"]) / 3
    assert statistics["policy_lag_max"] == statistics["policy_lag_mean"] == 4
    assert statistics["nonfinite"] == 0


def test_non_finite_log_probabilities_are_counted() -> None:
    engine = TorchEngine()
    with torch.no_grad():
        engine.model.lm_head.weight[5] = float("nan")
    statistics = forward_backward(engine, preference_tuples(2), DpkdConfig(), token_budget=10**6)
    assert statistics["nonfinite"] == statistics["tokens"] + 1  # every one, and the loss


def test_gold_nll_weighs_every_token_alike() -> None:
    engine, tuples = TorchEngine(), preference_tuples(4)
    logprobs = []
    for item in tuples:
        assert item.prompt.gold_ids_T is not None
        gold = Response(ids_T=item.prompt.gold_ids_T, finish_reason="stop")
        logprobs += naive_logprobs(engine, item, gold).tolist()
    result = gold_nll(engine, [item.prompt for item in tuples], token_budget=40)
    assert result["tokens"] == len(logprobs)
    assert result["nll"] == pytest.approx(-sum(logprobs) / len(logprobs), rel=1e-5)
