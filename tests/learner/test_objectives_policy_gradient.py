"""MiniLLM and on-policy distillation: values and gradients by hand."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from learner.objectives.minillm import minillm, mixture_logprobs
from learner.objectives.opd import opd
from learner.objectives.policy_gradient import surrogate
from tests.learner.small_mdp import (
    MASK_YT,
    VISITS_YSV,
    along_responses,
    close,
    kl,
    logprobs,
    over_responses,
    random_table,
)

LOG2 = math.log(2)


def logs(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "gradient"),
    [
        (2.0, 1.0, -1.2, 0.0),  # favoured enough
        (2.0, -1.0, 2.0, 2.0),
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),  # shunned enough
        (1.1, 1.0, -1.1, -1.1),
    ],
)
def test_the_surrogate_is_clipped_only_where_that_lowers_it(
    ratio: float, advantage: float, expected: float, gradient: float
) -> None:
    log_ratio_BT = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss = surrogate(log_ratio_BT, torch.tensor([[advantage]]), clip=0.2, share_BT=torch.ones(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert log_ratio_BT.grad is not None and log_ratio_BT.grad.item() == pytest.approx(gradient)


def test_the_surrogate_without_a_clip_is_the_plain_weighted_advantage() -> None:
    log_ratio_BT = logs(2.0, 0.5)
    loss = surrogate(
        log_ratio_BT, torch.tensor([[1.0, -1.0]]), clip=None, share_BT=torch.tensor([[0.5, 0.5]])
    )
    assert loss.item() == pytest.approx(-0.75)


def test_the_mixture_s_conditional_probabilities_by_hand() -> None:
    # mu_1 = 0.2 * 0.5 + 0.8 * 0.25 = 0.3; mu_2 = (0.2 * 0.25 + 0.8 * 0.03125) / 0.3 = 0.25.
    mixture_BT = mixture_logprobs(logs(0.5, 0.5, 1.0), logs(0.25, 0.125, 1.0), teacher_share=0.2)
    assert mixture_BT.exp()[0].tolist() == pytest.approx([0.3, 0.25, 1.0])


def test_a_mixture_without_the_teacher_is_the_behaviour() -> None:
    behaviour_BT = logs(0.25, 0.125)
    actual_BT = mixture_logprobs(logs(0.5, 0.5), behaviour_BT, teacher_share=0.0)
    torch.testing.assert_close(actual_BT, behaviour_BT)


def test_the_mixture_s_conditionals_multiply_to_the_mixture_of_sequences() -> None:
    generator = torch.manual_seed(0)
    teacher, behaviour = (
        [torch.rand(3**i, 3, generator=generator).log_softmax(-1) for i in range(2)]
        for _ in range(2)
    )
    paths = list(product(range(3), repeat=2))
    teacher_BT, behaviour_BT = (
        torch.stack([torch.stack([model[0][0, a], model[1][a, b]]) for a, b in paths])
        for model in (teacher, behaviour)
    )
    mixture_BT = mixture_logprobs(teacher_BT, behaviour_BT, teacher_share=0.3)
    expected_B = 0.3 * teacher_BT.sum(-1).exp() + 0.7 * behaviour_BT.sum(-1).exp()
    torch.testing.assert_close(mixture_BT.sum(-1).exp(), expected_B)
    first = mixture_BT[:, 0].exp().view(3, 3)[:, 0]
    assert first.sum().item() == pytest.approx(1.0)


def test_long_unlikely_sequences_keep_their_conditionals() -> None:
    teacher_BT = torch.full((1, 500), -8.0)
    behaviour_BT = torch.full((1, 500), -9.0)
    mixture_BT = mixture_logprobs(teacher_BT, behaviour_BT, teacher_share=0.2)
    assert mixture_BT[0, -1].item() == pytest.approx(-8.0)  # by then the teacher surely drew it


def minillm_by_hand(
    divergence_BT: Tensor | None, *, length_normalised: bool = True
) -> tuple[float, list[float], dict[str, float]]:
    """Three tokens and padding; q = mu, so that rho is 1; r = log 2, log 4, log 8."""
    student_BT = logs(0.25, 0.125, 0.0625, 1.0).requires_grad_()
    loss, statistics = minillm(
        student_BT,
        logs(0.5, 0.5, 0.5, 1.0),
        student_BT.detach(),
        divergence_BT,
        clip=0.2,
        length_normalised=length_normalised,
        share_BT=torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0]]),
    )
    loss.backward()
    assert student_BT.grad is not None
    values = {name: value.item() for name, value in statistics.items()}
    return loss.item(), student_BT.grad[0].tolist(), values


def test_minillm_sums_rewards_over_later_tokens_and_takes_the_own_step_exactly() -> None:
    # Returns log 2 * (5, 3, 0), by tokens (5/2, 3, 0).
    divergence_BT = torch.tensor([[0.3, 0.2, 0.1, 0.0]])
    loss, gradient, statistics = minillm_by_hand(divergence_BT)
    assert statistics["loss_policy_gradient"] == pytest.approx(-5.5 * LOG2 / 3)
    assert statistics["loss_single_step"] == pytest.approx(0.2)
    assert loss == pytest.approx(0.2 - 5.5 * LOG2 / 3)
    assert gradient == pytest.approx([-2.5 * LOG2 / 3, -LOG2, 0.0, 0.0], abs=1e-7)
    loss, gradient, _ = minillm_by_hand(divergence_BT, length_normalised=False)
    assert loss == pytest.approx(0.2 - 8 * LOG2 / 3)
    assert gradient == pytest.approx([-5 * LOG2 / 3, -LOG2, 0.0, 0.0], abs=1e-7)


def test_minillm_without_the_single_step_sums_from_the_token_itself() -> None:
    # Returns log 2 * (6, 5, 3), by tokens (2, 5/2, 3).
    loss, gradient, statistics = minillm_by_hand(None)
    assert statistics.keys() == {"loss_policy_gradient"}
    assert loss == pytest.approx(-2.5 * LOG2)
    assert gradient == pytest.approx([-2 * LOG2 / 3, -2.5 * LOG2 / 3, -LOG2, 0.0])


def test_minillm_weighs_the_single_step_by_the_ratio_without_its_gradient() -> None:
    student_BT = logs(0.5).requires_grad_()
    divergence_BT = torch.tensor([[0.3]], requires_grad=True)
    loss, _ = minillm(
        student_BT,
        logs(0.5),
        logs(0.25),
        divergence_BT,
        clip=0.2,
        length_normalised=True,
        share_BT=torch.ones(1, 1),
    )
    loss.backward()
    assert loss.item() == pytest.approx(0.6)  # rho = 2, and no token comes later
    assert divergence_BT.grad is not None and divergence_BT.grad.item() == pytest.approx(2.0)
    assert student_BT.grad is not None and student_BT.grad.item() == 0.0


def test_opd_by_hand() -> None:
    # q/mu = 2 and 1, p/q = 2 and 1/2; the third token is padding.
    student_BT = logs(0.5, 0.25, 1.0).requires_grad_()
    loss, statistics = opd(
        student_BT,
        logs(1.0, 0.125, 1.0),
        logs(0.25, 0.25, 1.0),
        clip=None,
        share_BT=torch.tensor([[0.5, 0.5, 0.0]]),
    )
    loss.backward()
    assert loss.item() == pytest.approx(-0.5 * LOG2)  # -(2 * 1 - 1) / 2
    assert statistics["loss_policy_gradient"].item() == loss.item()
    assert student_BT.grad is not None
    assert student_BT.grad[0].tolist() == pytest.approx([-LOG2, 0.5 * LOG2, 0.0])


def test_opd_clips_when_asked() -> None:
    student_BT = logs(0.5).requires_grad_()
    loss, _ = opd(student_BT, logs(1.0), logs(0.25), clip=0.2, share_BT=torch.ones(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(-1.2 * LOG2)
    assert student_BT.grad is not None and student_BT.grad.item() == 0.0


@pytest.mark.parametrize("behaviour", [1, 2], ids=["fresh", "stale"])
def test_opd_expects_the_reverse_kl_of_the_states_that_the_behaviour_visits(behaviour: int) -> None:
    logits_SV = random_table(1).requires_grad_()
    log_p_SV, log_mu_SV = logprobs(0), logprobs(behaviour)
    log_q_SV = logits_SV.log_softmax(-1)
    mu_Y = over_responses(log_mu_SV).exp()
    visits_S = torch.einsum("ysv,y->s", VISITS_YSV, mu_Y)
    exact = (visits_S * kl(log_q_SV, log_p_SV)).sum()
    # Every response, weighed by how often the behaviour draws it; tokens are summed.
    share_YT = torch.where(MASK_YT, mu_Y[:, None], 0.0)
    loss, _ = opd(
        along_responses(log_q_SV),
        along_responses(log_p_SV),
        along_responses(log_mu_SV),
        clip=None,
        share_BT=share_YT,
    )
    assert close(loss, exact)
    (expected_SV,) = torch.autograd.grad(exact, logits_SV, retain_graph=True)
    (actual_SV,) = torch.autograd.grad(loss, logits_SV)
    assert close(actual_SV, expected_SV)
    # Were the states drawn by q itself, another objective would be followed: lag still counts.
    own_S = torch.einsum("ysv,y->s", VISITS_YSV, over_responses(log_q_SV).exp().detach())
    assert close(own_S, visits_S) == (behaviour == 1)
