"""Objectives in a learning step: against the logits of whole sequences, one by one."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.objective import DpkdConfig, ObjectiveConfig
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
from learner.cut import micro_batches
from learner.segments import Asked
from learner.step import forward_backward
from tests.learner.learner_builders import VOCABULARY, tuples_for
from tests.learner.torch_engine import TorchEngine, naive_logprobs

Naive = Callable[[Tensor, Tensor, Tensor, Response], Tensor]
"""log q and log p of the whole vocabulary (T, V), the tokens (T,) -> the loss of one sequence."""


def response_of(item: PreferenceTuple) -> Response:
    response = item.student_response or item.teacher_response
    assert response is not None
    return response


def forward_kl_and_nll(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, _: Response) -> Tensor:
    divergence_T = (log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(-1)
    return 0.75 * divergence_T.mean() - 0.25 * log_q_TV.gather(1, ids_T[:, None]).mean()


def reverse_kl(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, _: Response) -> Tensor:
    return (log_q_TV.exp() * (log_q_TV - log_p_TV)).sum(-1).mean()


def jsd(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, _: Response) -> Tensor:
    log_m_TV = (0.3 * log_p_TV.exp() + 0.7 * log_q_TV.exp()).log()
    of_p_T = (log_p_TV.exp() * (log_p_TV - log_m_TV)).sum(-1)
    of_q_T = (log_q_TV.exp() * (log_q_TV - log_m_TV)).sum(-1)
    return (0.3 * of_p_T + 0.7 * of_q_T).mean()


def adaptive_kl(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, _: Response) -> Tensor:
    states = []
    for log_q_V, log_p_V in zip(log_q_TV, log_p_TV, strict=True):
        order = log_p_V.argsort(descending=True).tolist()
        head, mass = [], 0.0
        while mass < 0.5:
            head.append(order[len(head)])
            mass += log_p_V[head[-1]].exp().item()
        gap_V = (log_p_V.exp() - log_q_V.detach().exp()).abs()
        share = gap_V[head].sum() / gap_V.sum()
        forward = (log_p_V.exp() * (log_p_V - log_q_V)).sum()
        reverse = (log_q_V.exp() * (log_q_V - log_p_V)).sum()
        states.append(share * forward + (1 - share) * reverse)
    return torch.stack(states).mean()


def argmax_actions(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, _: Response) -> Tensor:
    a_p, a_q = log_p_TV.argmax(-1, keepdim=True), log_q_TV.argmax(-1, keepdim=True)
    ratio_TV = log_q_TV - log_p_TV
    return -F.logsigmoid(0.5 * (ratio_TV.gather(1, a_p) - ratio_TV.gather(1, a_q))).mean()


def minillm(objective: MiniLlmConfig) -> Naive:
    """Token by token, with the mixture as a ratio of products of probabilities."""
    alpha, low, high = objective.teacher_share, 1 - objective.clip, 1 + objective.clip
    first = 1 if objective.single_step else 0

    def loss(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, response: Response) -> Tensor:
        log_q_T, log_p_T = (of.gather(1, ids_T[:, None])[:, 0] for of in (log_q_TV, log_p_TV))
        p_T, mu_T = log_p_T.double().exp(), log_q_T.detach().double().exp()
        if response.behaviour_logprobs_T is not None:
            mu_T = torch.from_numpy(response.behaviour_logprobs_T).double().exp()
        total = torch.zeros(())
        for i in range(len(ids_T)):
            drawn = alpha * p_T[: i + 1].prod() + (1 - alpha) * mu_T[: i + 1].prod()
            ratio = log_q_T[i].exp()
            ratio = ratio / (drawn / (alpha * p_T[:i].prod() + (1 - alpha) * mu_T[:i].prod()))
            later_T = (log_p_T - log_q_T.detach())[i + first :]
            value = later_T.sum()
            if objective.length_normalised and len(later_T):
                value = later_T.mean()
            total = total - torch.minimum(ratio * value, ratio.clamp(low, high) * value)
            if objective.single_step:
                single = (log_q_TV[i].exp() * (log_q_TV[i] - log_p_TV[i])).sum()
                total = total + ratio.detach() * single
        return total / len(ids_T)

    return loss


def opd(clip: float) -> Naive:
    def loss(log_q_TV: Tensor, log_p_TV: Tensor, ids_T: Tensor, response: Response) -> Tensor:
        assert response.behaviour_logprobs_T is not None
        log_mu_T = torch.from_numpy(response.behaviour_logprobs_T)
        log_q_T, log_p_T = (of.gather(1, ids_T[:, None])[:, 0] for of in (log_q_TV, log_p_TV))
        ratio_T, value_T = (log_q_T - log_mu_T).exp(), log_p_T - log_q_T.detach()
        return -torch.minimum(ratio_T * value_T, ratio_T.clamp(1 - clip, 1 + clip) * value_T).mean()

    return loss


MINILLMS = (
    MiniLlmConfig(teacher_share=0.4),
    MiniLlmConfig(teacher_share=0.1, clip=0.05, length_normalised=False),
    MiniLlmConfig(teacher_share=0.1, clip=0.3, single_step=False),
)


def naive_loss(engine: TorchEngine, item: PreferenceTuple, loss: Naive) -> Tensor:
    """Take ``loss`` over one unpadded sequence with both models' whole distributions."""
    response = response_of(item)
    prompt = torch.from_numpy(item.prompt.prompt_ids_P).long()
    ids_T = torch.from_numpy(response.ids_T).long()
    logits_LV = engine.model(input_ids=torch.cat([prompt, ids_T])[None]).logits[0]
    log_q_TV = logits_LV[len(prompt) - 1 : -1].log_softmax(-1)
    assert response.teacher_top_ids_TK is not None
    assert response.teacher_top_logprobs_TK is not None
    log_p_TV = torch.empty_like(log_q_TV).scatter(
        1,
        torch.from_numpy(response.teacher_top_ids_TK).long(),
        torch.from_numpy(response.teacher_top_logprobs_TK),
    )
    return loss(log_q_TV, log_p_TV, ids_T, response)


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        (KdConfig(nll_weight=0.25), forward_kl_and_nll),
        (ReverseKlConfig(), reverse_kl),
        (GkdConfig(beta=0.3), jsd),
        (AklConfig(), adaptive_kl),
        (DpkdConfig(level="token", beta=0.5), argmax_actions),
        *((objective, minillm(objective)) for objective in MINILLMS),
        (OpdConfig(), opd(math.inf)),
        (OpdConfig(clip=0.3), opd(0.3)),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_with_the_whole_vocabulary_a_step_is_what_full_softmaxes_give(
    objective: ObjectiveConfig, loss: Naive
) -> None:
    tuples = tuples_for(objective, 4, top_k=VOCABULARY)
    check_step(objective, tuples, lambda engine, item: naive_loss(engine, item, loss))


def check_step(
    objective: ObjectiveConfig,
    tuples: list[PreferenceTuple],
    loss: Callable[[TorchEngine, PreferenceTuple], Tensor],
) -> None:
    """Compare loss and gradients of a step with the mean of ``loss`` over its tuples."""
    expected_engine, engine = TorchEngine(), TorchEngine()
    expected = torch.stack([loss(expected_engine, item) for item in tuples]).mean()
    expected.backward()
    statistics = forward_backward(engine, tuples, objective, token_budget=60)
    assert statistics["loss"] == pytest.approx(expected.item(), rel=1e-4)
    for actual, wanted in zip(engine.gradients(), expected_engine.gradients(), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-3)


class Side(NamedTuple):
    """A response of a pair, by (T,) log-probabilities of its tokens."""

    q_T: Tensor
    p_T: Tensor
    ref_T: Tensor
    score: float

    @classmethod
    def of(cls, engine: TorchEngine, item: PreferenceTuple, response: Response | None) -> "Side":
        assert response is not None and response.score is not None
        assert response.teacher_logprobs_T is not None
        assert response.reference_logprobs_T is not None
        return cls(
            naive_logprobs(engine, item, response),
            torch.from_numpy(response.teacher_logprobs_T),
            torch.from_numpy(response.reference_logprobs_T),
            response.score,
        )


def log1p_exp(value: Tensor) -> Tensor:
    return torch.logaddexp(value, torch.zeros(()))


def dadpo_sums(better: Side, worse: Side) -> Tensor:
    """b1 = 0.2 for the initial student, b2 = 0.7 for the teacher."""
    good, bad = (
        0.9 * y.q_T.sum() - 0.2 * y.ref_T.sum() - 0.7 * y.p_T.sum() for y in (better, worse)
    )
    return log1p_exp(bad - good)


PAIRS: list[tuple[ObjectiveConfig, Callable[[Side, Side], Tensor]]] = [
    (
        DpkdConfig(beta=0.3, length_normalised=False),
        lambda t, s: log1p_exp(0.3 * ((s.q_T - s.p_T).sum() - (t.q_T - t.p_T).sum())),
    ),
    (
        IpoConfig(tau=0.4, length_normalised=False),
        lambda t, s: ((t.q_T - t.p_T).sum() - (s.q_T - s.p_T).sum() - 1.25) ** 2,
    ),
    (
        IpoConfig(tau=0.25),
        lambda t, s: ((t.q_T - t.p_T).mean() - (s.q_T - s.p_T).mean() - 2.0) ** 2,
    ),
    (
        CpoConfig(beta=0.3, nll_weight=0.6),
        lambda t, s: log1p_exp(0.3 * (s.q_T.sum() - t.q_T.sum())) - 0.6 * t.q_T.mean(),
    ),
    (
        SimpoConfig(beta=3.0, gamma=0.4),
        lambda t, s: log1p_exp(3.0 * s.q_T.mean() - 3.0 * t.q_T.mean() + 0.4),
    ),
    (
        PladConfig(beta=15.0, mle_weight=0.6),
        lambda t, s: (15.0 - t.q_T.sum() + s.q_T.sum()).relu() - 0.6 * t.q_T.mean(),
    ),
    (
        PladConfig(form="margin", beta=2.0, length_normalised=True, mle_weight=0.3),
        lambda t, s: (
            (2.0 * (t.score - s.score) - t.q_T.mean() + s.q_T.mean()).relu() - 0.3 * t.q_T.mean()
        ),
    ),
    (DadpoConfig(beta_reference=0.2, beta_teacher=0.7), dadpo_sums),
    (
        DdpoConfig(beta=0.3),
        lambda t, s: log1p_exp(0.3 * ((s.q_T - s.ref_T).sum() - (t.q_T - t.ref_T).sum())),
    ),
    (
        DdpoConfig(beta=0.8, length_normalised=True),
        lambda t, s: log1p_exp(0.8 * ((s.q_T - s.ref_T).mean() - (t.q_T - t.ref_T).mean())),
    ),
]


@pytest.mark.parametrize(
    ("objective", "loss"), PAIRS, ids=lambda value: getattr(value, "type", None)
)
def test_a_step_on_pairs_is_what_its_formula_gives(
    objective: ObjectiveConfig, loss: Callable[[Side, Side], Tensor]
) -> None:
    def of_pair(engine: TorchEngine, item: PreferenceTuple) -> Tensor:
        responses = item.teacher_response, item.student_response
        return loss(*(Side.of(engine, item, response) for response in responses))

    check_step(objective, tuples_for(objective, 6), of_pair)


@pytest.mark.parametrize(
    ("objective", "same", "unknown"),
    [
        (
            DadpoConfig(beta_reference=0.0, beta_teacher=0.3),
            DpkdConfig(beta=0.3, length_normalised=False),
            ["reference_logprobs_T"],
        ),
        (
            DadpoConfig(beta_reference=0.3, beta_teacher=0.0),
            DdpoConfig(beta=0.3),
            ["teacher_logprobs_T"],
        ),
        (
            MiniLlmConfig(single_step=False),
            MiniLlmConfig(single_step=False),
            ["teacher_top_ids_TK", "teacher_top_logprobs_TK"],
        ),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_what_a_setting_makes_needless_may_be_unknown(
    objective: ObjectiveConfig, same: ObjectiveConfig, unknown: list[str]
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(unknown)
    known = tuples_for(objective, 4)
    poorer = [
        replace(
            item,
            **{
                side: replace(response, **nothing)
                for side in ("teacher_response", "student_response")
                if (response := getattr(item, side)) is not None
            },
        )
        for item in known
    ]
    actual = forward_backward(TorchEngine(), poorer, objective, token_budget=10**6)
    expected = forward_backward(TorchEngine(), known, same, token_budget=10**6)
    assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    rewards = {name for name in actual if name.startswith("reward")}
    assert rewards == {name for name in expected if name.startswith("reward")}


def sampled_actions(objective: ObjectiveConfig, item: PreferenceTuple) -> Naive:
    """Return the loss at beta 0.5 with the actions that the tuple's own numbers draw."""
    (batch,) = micro_batches([item], Asked.of(objective), rank=0, ranks=1, token_budget=1)
    assert batch.uniforms_2M is not None and batch.top_ids_MK is not None
    of_student_T1, of_teacher_T1 = batch.uniforms_2M[..., None]
    top_ids_TV = batch.top_ids_MK.long()

    def loss(log_q_TV: Tensor, log_p_TV: Tensor, *_: object) -> Tensor:
        p_TV = log_p_TV.gather(1, top_ids_TV).double().exp()
        column_T1 = (p_TV.cumsum(-1) <= of_teacher_T1).sum(-1, keepdim=True)
        a_p = top_ids_TV.gather(1, column_T1)
        a_q = (log_q_TV.double().exp().cumsum(-1) <= of_student_T1).sum(-1, keepdim=True)
        ratio_TV = log_q_TV - log_p_TV
        return -F.logsigmoid(0.5 * (ratio_TV.gather(1, a_p) - ratio_TV.gather(1, a_q))).mean()

    return loss


def test_sampled_actions_are_drawn_from_each_model_s_own_distribution() -> None:
    objective = DpkdConfig(level="token", actions="sampled", states="student", beta=0.5)
    tuples = tuples_for(objective, 4, top_k=VOCABULARY)
    engine = TorchEngine()
    losses = [naive_loss(engine, item, sampled_actions(objective, item)).item() for item in tuples]
    statistics = forward_backward(engine, tuples, objective, token_budget=10**6)
    expected = sum(losses) / len(losses)
    assert abs(expected - 0.6931472) > 1e-2
    assert statistics["loss_preference"] == pytest.approx(expected, rel=1e-4)


def test_plad_s_margin_is_the_difference_of_scores() -> None:
    objective = PladConfig(form="margin", beta=30.0, mle_weight=0.0)
    engine, tuples = TorchEngine(), tuples_for(objective, 3)
    expected = 0.0
    for item in tuples:
        y_t, y_s = item.teacher_response, item.student_response
        assert y_t is not None and y_s is not None
        assert y_t.score is not None and y_s.score is not None
        gap = naive_logprobs(engine, item, y_t).sum() - naive_logprobs(engine, item, y_s).sum()
        expected += max(0.0, 30.0 * (y_t.score - y_s.score) - gap.item()) / 3
    assert expected > 1
    statistics = forward_backward(engine, tuples, objective, token_budget=10**6)
    assert statistics["loss_preference"] == pytest.approx(expected, rel=1e-4)


def test_divergence_statistics_are_those_of_the_student_s_sequences_alone() -> None:
    objective = GkdConfig(on_policy_share=0.5)
    tuples = tuples_for(objective, 8)
    drawn = [item for item in tuples if item.student_response is not None]
    assert 0 < len(drawn) < len(tuples)
    mixed = forward_backward(TorchEngine(step=3), tuples, objective, token_budget=60)
    alone = forward_backward(TorchEngine(step=3), drawn, objective, token_budget=60)
    names = "reverse_kl_k1 reverse_kl_k3 reverse_kl_per_token logprob_drift policy_lag_mean"
    for name in [*names.split(), "response_length_student"]:
        assert mixed[name] == pytest.approx(alone[name], rel=1e-4), name
    given = [response_of(item) for item in tuples if item.student_response is None]
    expected = sum(len(response.ids_T) for response in given) / len(given)
    assert mixed["response_length_teacher"] == expected
    assert mixed["pairs"] == 8


POLICY = {"reverse_kl_k1", "reverse_kl_k3", "reverse_kl_per_token", "logprob_drift"}


def test_without_a_student_response_there_is_nothing_to_say_of_the_policy() -> None:
    for objective in (KdConfig(), SeqKdConfig()):
        tuples = tuples_for(objective, 3)
        statistics = forward_backward(TorchEngine(), tuples, objective, token_budget=10**6)
        assert not POLICY & statistics.keys() and "policy_lag_mean" not in statistics


def test_without_the_teacher_s_log_probabilities_only_the_drift_is_known() -> None:
    tuples = []
    for item in tuples_for(CpoConfig(), 3):
        assert item.teacher_response is not None and item.student_response is not None
        tuples.append(
            replace(
                item,
                teacher_response=replace(item.teacher_response, teacher_logprobs_T=None),
                student_response=replace(item.student_response, teacher_logprobs_T=None),
            )
        )
    statistics = forward_backward(TorchEngine(), tuples, CpoConfig(), token_budget=10**6)
    assert statistics.keys() & POLICY == {"logprob_drift"}
    assert not [name for name in statistics if name.startswith("reward")]


@pytest.mark.parametrize("objective", [KdConfig(), ReverseKlConfig(), DpkdConfig(level="token")])
def test_an_impossible_token_among_the_teacher_s_likeliest_is_sound(
    objective: ObjectiveConfig,
) -> None:
    tuples = tuples_for(objective, 3)
    for item in tuples:
        top = response_of(item).teacher_top_logprobs_TK
        assert top is not None
        top[:, -2:] = -np.inf
    engine = TorchEngine()
    statistics = forward_backward(engine, tuples, objective, token_budget=10**6)
    assert statistics["nonfinite"] == 0 and np.isfinite(statistics["loss"])
    assert all(gradient.isfinite().all() for gradient in engine.gradients())
    top = response_of(tuples[0]).teacher_top_logprobs_TK
    assert top is not None
    top[0, 0] = np.nan
    assert forward_backward(engine, tuples, objective, token_budget=10**6)["nonfinite"] > 0
