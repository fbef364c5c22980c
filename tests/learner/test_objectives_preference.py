"""The other preference objectives: values and gradients in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.objectives.actions import choose
from learner.objectives.cpo import cpo
from learner.objectives.dadpo import dadpo
from learner.objectives.dpkd import dpkd
from learner.objectives.ipo import ipo
from learner.objectives.plad import plad
from learner.objectives.sequences import SequenceScores
from learner.objectives.simpo import simpo
from learner.objectives.token_preference import ActionScores, teacher_logprob_of, token_preference


def side(student: float, length: float, teacher: float = 0.0, ref: float = 0.0) -> SequenceScores:
    values = (torch.tensor([value]) for value in (teacher, length, ref))
    return SequenceScores(torch.tensor([student], requires_grad=True), *values)


def better() -> SequenceScores:
    return side(-6.0, 4.0, teacher=-2.0, ref=-4.0)


def worse() -> SequenceScores:
    return side(-3.0, 2.0, teacher=-4.0, ref=-5.0)


def solved(objective: Any, *extra: Tensor, **settings: Any) -> tuple[float, list[float], dict]:
    """Return the loss, its derivatives by S_q(y_t) and S_q(y_s), and the statistics."""
    sides = better(), worse()
    loss, statistics = objective(*sides, *extra, **settings, pair_count=1)
    loss.backward()
    values = {name: value.item() for name, value in statistics.items()}
    grad_t, grad_s = (s.student_B.grad for s in sides)
    assert grad_t is not None and grad_s is not None
    return loss.item(), [grad_t.item(), grad_s.item()], values


def test_ipo_squares_the_distance_of_the_margin_from_its_target() -> None:
    # h(y_t) = -4/4, h(y_s) = 1/2, target 1/(2 tau) = 1: (-1.5 - 1)^2, gradients -+ 5 / |y|.
    loss, gradients, statistics = solved(ipo, tau=0.5, length_normalised=True)
    assert loss == 6.25
    assert gradients == [-1.25, 2.5]
    assert statistics == {
        "loss_preference": 6.25,
        "reward_teacher": -0.5,
        "reward_student": 0.25,
        "reward_margin": -0.75,
        "preference_accuracy": 0.0,
    }


def test_ipo_takes_sums_as_printed() -> None:
    # (-4 - 1 - 1)^2, gradients -+ 12.
    assert solved(ipo, tau=0.5, length_normalised=False)[:2] == (36.0, [-12.0, 12.0])


def test_cpo_adds_a_likelihood_anchor_per_token() -> None:
    # log(1 + e^1.5) + 2 * 6/4; d/dS_q(y_t) = -0.5 sigma(1.5) - 2/4.
    loss, gradients, statistics = solved(cpo, beta=0.5, nll_weight=2.0)
    assert loss == pytest.approx(4.701413277982752)
    assert gradients == pytest.approx([-0.9087872381, 0.4087872381])
    assert statistics == pytest.approx({"loss_preference": 1.701413277982752, "loss_nll": 1.5})


def test_simpo_shifts_the_margin_of_token_averages_by_gamma() -> None:
    # Both average -1.5: margin -gamma. d/dS_q = -+ beta sigma(1) / |y|.
    loss, gradients, statistics = solved(simpo, beta=2.0, gamma=1.0)
    assert loss == pytest.approx(1.3132616875182228)
    assert gradients == pytest.approx([-0.3655292893, 0.7310585786])
    assert statistics.keys() == {"loss_preference"}


def test_plad_is_a_hinge_on_sums_with_an_anchor() -> None:
    # max(0, 1 + 6 - 3) + 6/4; the anchor adds -1/4 to the hinge's -1.
    margin_B = torch.tensor([1.0])
    loss, gradients, statistics = solved(plad, margin_B, length_normalised=False, mle_weight=1.0)
    assert loss == 5.5 and gradients == [-1.25, 1.0]
    assert statistics == {"loss_preference": 4.0, "loss_nll": 1.5}


def test_plad_per_token_divides_each_side_by_its_own_length() -> None:
    # max(0, 1 + 1.5 - 1.5), gradients -1/4 and +1/2.
    margin_B = torch.tensor([1.0])
    loss, gradients, _ = solved(plad, margin_B, length_normalised=True, mle_weight=0.0)
    assert loss == 1.0 and gradients == [-0.25, 0.5]


def test_plad_leaves_pairs_alone_whose_margin_is_met() -> None:
    loss, gradients, statistics = solved(
        plad, torch.tensor([-4.0]), length_normalised=False, mle_weight=1.0
    )
    assert statistics["loss_preference"] == 0.0
    assert loss == 1.5 and gradients == [-0.25, 0.0]


def test_dadpo_weighs_two_references() -> None:
    # r(y_t) = 0.2 (-6 + 4) + 0.3 (-6 + 2) = -1.6, r(y_s) = 0.2 * 2 + 0.3 * 1 = 0.7.
    settings = {"beta_reference": 0.2, "beta_teacher": 0.3}
    loss, gradients, _ = solved(dadpo, **settings, length_normalised=False)
    assert loss == pytest.approx(2.3955454645)  # log(1 + e^2.3)
    assert gradients == pytest.approx([-0.4544385195, 0.4544385195])  # 0.5 sigma(2.3)
    # Per token: -0.4 and 0.35.
    loss, gradients, _ = solved(dadpo, **settings, length_normalised=True)
    assert loss == pytest.approx(1.1368710061)  # log(1 + e^0.75)
    assert gradients == pytest.approx([-0.0848973374, 0.1697946748])  # 0.5 sigma(0.75) / |y|


@pytest.mark.parametrize("length_normalised", [False, True])
def test_dadpo_without_the_reference_is_dpkd(length_normalised: bool) -> None:
    settings = {"length_normalised": length_normalised}
    loss, gradients, _ = solved(dadpo, beta_reference=0.0, beta_teacher=0.3, **settings)
    expected, expected_gradients, _ = solved(dpkd, beta=0.3, **settings)
    assert loss == pytest.approx(expected)
    assert gradients == pytest.approx(expected_gradients)


def test_dadpo_without_the_teacher_is_dpo_and_does_not_look_at_it() -> None:
    # 0.5 (-2 - 2) = -2.
    loss, gradients, _ = solved(
        dadpo, beta_reference=0.5, beta_teacher=0.0, length_normalised=False
    )
    assert loss == pytest.approx(2.1269280110)  # log(1 + e^2)
    assert gradients == pytest.approx([-0.4403985390, 0.4403985390])


def actions(student: list[float], teacher: list[float]) -> ActionScores:
    student_BT = torch.tensor([student]).log().requires_grad_()
    return ActionScores(student_BT, torch.tensor([teacher]).log())


def test_token_preference_by_hand() -> None:
    # First token: q 1/4 against 1/2, p 0.6 against 0.1: margin log(1/2) - log 6. Second token: both
    # take one action. Third: padding.
    of_teacher = actions([0.25, 0.4, 1.0], [0.6, 0.7, 1.0])
    of_student = actions([0.5, 0.4, 1.0], [0.1, 0.7, 1.0])
    share_BT = torch.tensor([[0.5, 0.5, 0.0]])
    loss, statistics = token_preference(of_teacher, of_student, beta=1.0, share_BT=share_BT)
    loss.backward()
    assert loss.item() == pytest.approx((math.log(13) + math.log(2)) / 2)
    assert statistics["loss_preference"].item() == loss.item()
    assert of_teacher.student_BT.grad is not None and of_student.student_BT.grad is not None
    assert of_teacher.student_BT.grad[0].tolist() == pytest.approx([-6 / 13, -0.25, 0.0])
    assert of_student.student_BT.grad[0].tolist() == pytest.approx([6 / 13, 0.25, 0.0])


def test_beta_scales_the_margin_of_actions() -> None:
    share_BT = torch.tensor([[1.0]])
    of_teacher, of_student = actions([0.25], [0.6]), actions([0.5], [0.1])
    loss, _ = token_preference(of_teacher, of_student, beta=0.5, share_BT=share_BT)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1 + math.sqrt(12)))
    assert of_teacher.student_BT.grad is not None
    # -0.5 sigma(log(12) / 2)
    assert of_teacher.student_BT.grad.item() == pytest.approx(-0.3879953811)


def test_the_likeliest_token_is_chosen_without_numbers() -> None:
    logprobs_NV = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]]).log()
    assert choose(logprobs_NV, None).tolist() == [1, 0]


def test_numbers_choose_by_the_cumulative_distribution() -> None:
    # Masses 0.1, 0, 0.25, 0.15 become 0.2, 0, 0.5, 0.3 when normalised.
    uniform_N = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.999], dtype=torch.float64)
    logprobs_NV = torch.tensor([[0.1, 0.0, 0.25, 0.15]]).log().expand(6, 4)
    assert choose(logprobs_NV, uniform_N).tolist() == [0, 0, 2, 2, 3, 3]


def test_a_token_that_starts_with_no_mass_is_never_drawn() -> None:
    logprobs_NV = torch.tensor([[0.0, 1.0, 0.0]]).log().expand(2, 3)
    uniform_N = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert choose(logprobs_NV, uniform_N).tolist() == [1, 1]


def test_the_teacher_s_probability_of_an_unlisted_token_is_an_equal_share_of_the_tail() -> None:
    top_ids_MK = torch.tensor([[3, 1], [3, 1], [3, -1]])
    top_logprobs_MK = torch.tensor([[0.5, 0.3], [0.5, 0.3], [0.6, 0.0]]).log()
    tail_count_M = torch.tensor([4.0, 4.0, 5.0])
    actual_M = teacher_logprob_of(
        torch.tensor([1, 0, 2]), top_ids_MK, top_logprobs_MK, tail_count_M
    )
    assert actual_M.exp().tolist() == pytest.approx([0.3, 0.05, 0.08])
