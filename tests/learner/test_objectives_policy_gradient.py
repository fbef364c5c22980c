"""MiniLLM and on-policy distillation: values and gradients by hand."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from learner.objectives.minillm import minillm, mixture_logprobs
from learner.objectives.opd import opd
from learner.objectives.policy_gradient import surrogate

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
    # q/mu = 2 and 1, p/mu = 4 and 1/2; the third token is padding.
    student_BT = logs(0.5, 0.25, 1.0).requires_grad_()
    loss, statistics = opd(
        student_BT,
        logs(1.0, 0.125, 1.0),
        logs(0.25, 0.25, 1.0),
        clip=None,
        share_BT=torch.tensor([[0.5, 0.5, 0.0]]),
    )
    loss.backward()
    assert loss.item() == pytest.approx(-1.5 * LOG2)  # -(2 * 2 - 1) / 2
    assert statistics["loss_policy_gradient"].item() == loss.item()
    assert student_BT.grad is not None
    assert student_BT.grad[0].tolist() == pytest.approx([-2 * LOG2, 0.5 * LOG2, 0.0])


def test_opd_clips_when_asked() -> None:
    student_BT = logs(0.5).requires_grad_()
    loss, _ = opd(student_BT, logs(1.0), logs(0.25), clip=0.2, share_BT=torch.ones(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(-2.4 * LOG2)
    assert student_BT.grad is not None and student_BT.grad.item() == 0.0


def test_opd_follows_the_gradient_of_the_reverse_kl_of_a_step() -> None:
    generator = torch.manual_seed(3)
    logits_V = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    log_p_V = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(-1)
    log_q_V = logits_V.log_softmax(-1)
    exact = (log_q_V.exp() * (log_q_V - log_p_V)).sum()
    (expected_V,) = torch.autograd.grad(exact, logits_V, retain_graph=True)
    # One token each, weighed by how often the student draws it.
    share_BT = log_q_V.detach().exp()[:, None]
    loss, _ = opd(
        log_q_V[:, None], log_p_V[:, None], log_q_V.detach()[:, None], clip=None, share_BT=share_BT
    )
    (actual_V,) = torch.autograd.grad(loss, logits_V)
    torch.testing.assert_close(actual_V, expected_V)
    assert loss.item() == pytest.approx(exact.item())
