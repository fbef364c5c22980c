"""The objectives: values and gradients in closed form."""

import math

import pytest
import torch
from torch import Tensor

from learner.objectives.divergences import first_token_kl, reverse_kl_k1, reverse_kl_k3
from learner.objectives.dpkd import dpkd
from learner.objectives.sequences import SequenceScores
from learner.objectives.sft import mean_nll


def scores(student: list[float], teacher: list[float], length: list[float]) -> SequenceScores:
    student_B = torch.tensor(student, requires_grad=True)
    return SequenceScores(student_B, torch.tensor(teacher), torch.tensor(length))


def loss_and_gradients(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    beta: float = 1.0,
    length_normalised: bool = True,
    pair_count: int = 1,
) -> tuple[float, list[float], list[float], dict[str, Tensor]]:
    loss, statistics = dpkd(
        teacher_side,
        student_side,
        beta=beta,
        length_normalised=length_normalised,
        pair_count=pair_count,
    )
    loss.backward()
    grad_t, grad_s = teacher_side.student_B.grad, student_side.student_B.grad
    assert grad_t is not None and grad_s is not None
    return loss.item(), grad_t.tolist(), grad_s.tolist(), statistics


def test_eq_9_divides_each_side_by_its_own_length() -> None:
    # r(y_t) = 0.5 (-6 + 2) / 4 = -0.5 and r(y_s) = 0.5 (-3 + 5) / 2 = 0.5: margin -1.
    loss, grad_t, grad_s, statistics = loss_and_gradients(
        scores([-6.0], [-2.0], [4.0]), scores([-3.0], [-5.0], [2.0]), beta=0.5
    )
    assert loss == pytest.approx(1.3132616875182228)  # log(1 + e)
    # d/dS_q(y_t) = -beta sigma(1) / 4 and d/dS_q(y_s) = +beta sigma(1) / 2.
    assert grad_t == pytest.approx([-0.09138232233])
    assert grad_s == pytest.approx([0.18276464466])
    assert {name: value.item() for name, value in statistics.items()} == {
        "loss_preference": loss,
        "reward_teacher": -0.5,
        "reward_student": 0.5,
        "reward_margin": -1.0,
        "preference_accuracy": 0.0,
    }


def test_eq_8_takes_sums() -> None:
    # r(y_t) = 0.5 (-6 + 2) = -2 and r(y_s) = 0.5 (-3 + 5) = 1: margin -3.
    loss, grad_t, grad_s, _ = loss_and_gradients(
        scores([-6.0], [-2.0], [4.0]),
        scores([-3.0], [-5.0], [2.0]),
        beta=0.5,
        length_normalised=False,
    )
    assert loss == pytest.approx(3.048587351573742)  # log(1 + e^3)
    assert grad_t == pytest.approx([-0.4762870634])  # -0.5 sigma(3)
    assert grad_s == pytest.approx([0.4762870634])


def test_eq_8_and_eq_9_agree_on_responses_of_one_token() -> None:
    results = [
        loss_and_gradients(
            scores([-6.0, -1.0], [-2.0, -3.0], [1.0, 1.0]),
            scores([-3.0, -2.0], [-5.0, -2.5], [1.0, 1.0]),
            length_normalised=length_normalised,
            pair_count=2,
        )[:3]
        for length_normalised in (True, False)
    ]
    assert results[0] == results[1]


def test_the_loss_is_log_2_where_student_equals_teacher() -> None:
    loss, _, _, statistics = loss_and_gradients(
        scores([-4.0], [-4.0], [3.0]), scores([-9.0], [-9.0], [5.0]), beta=7.0
    )
    assert loss == pytest.approx(math.log(2))
    assert statistics["reward_margin"].item() == 0.0


def test_the_push_is_stronger_where_the_order_is_wrong() -> None:
    right, wrong = [
        loss_and_gradients(scores([value], [-3.0], [1.0]), scores([-3.0], [-3.0], [1.0]))[1][0]
        for value in (-1.0, -5.0)
    ]
    assert right == pytest.approx(-0.1192029220)  # -sigma(-2)
    assert wrong == pytest.approx(-0.8807970780)  # -sigma(+2)


def test_shares_of_a_cut_batch_add_up_to_the_whole() -> None:
    teacher = [(-6.0, -2.0, 4.0), (-3.0, -4.0, 2.0), (-9.0, -8.0, 6.0)]
    student = [(-3.0, -5.0, 2.0), (-1.0, -1.5, 1.0), (-7.0, -8.0, 5.0)]

    def loss(rows: slice) -> float:
        sides = [scores(*map(list, zip(*side[rows], strict=True))) for side in (teacher, student)]
        return loss_and_gradients(sides[0], sides[1], pair_count=3)[0]

    assert loss(slice(0, 1)) + loss(slice(1, 3)) == pytest.approx(loss(slice(0, 3)))


@pytest.mark.parametrize("gap", [-1e6, 1e6])
def test_extreme_margins_stay_finite(gap: float) -> None:
    loss, grad_t, grad_s, _ = loss_and_gradients(
        scores([gap], [0.0], [1.0]), scores([-gap], [0.0], [1.0])
    )
    assert loss == (2e6 if gap < 0 else 0.0)
    assert grad_t == [-1.0 if gap < 0 else 0.0] and grad_s == [1.0 if gap < 0 else 0.0]


def test_half_precision_scores_are_refused() -> None:
    side = scores([-4.0], [-4.0], [3.0])
    half = side._replace(teacher_B=side.teacher_B.bfloat16())
    with pytest.raises(AssertionError, match=r"teacher_B is torch\.bfloat16"):
        dpkd(half, side, beta=1.0, length_normalised=True, pair_count=1)


def test_padding_adds_nothing_to_a_sequence() -> None:
    side = SequenceScores.of(
        torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-3.0, -0.5, 0.0]]), torch.tensor([2.0])
    )
    assert side.student_B.tolist() == [-3.0] and side.teacher_B.tolist() == [-3.5]


def test_nll_averages_over_sequences_whatever_their_length() -> None:
    # (6/3 + 8/2) / 2 = 3, gradients -1/(2 |y|)
    student_B = torch.tensor([-6.0, -8.0], requires_grad=True)
    loss = mean_nll(student_B, torch.tensor([3.0, 2.0]), sequence_count=2)
    loss.backward()
    assert loss.item() == 3.0
    assert student_B.grad is not None
    assert student_B.grad.tolist() == pytest.approx([-1 / 6, -1 / 4])


def test_reverse_kl_estimates_by_hand() -> None:
    q_BT = torch.tensor([[math.log(0.5), math.log(0.25), 0.0]])
    p_BT = torch.tensor([[math.log(0.25), math.log(0.5), 0.0]])
    assert reverse_kl_k1(q_BT, p_BT).tolist() == pytest.approx([0.0], abs=1e-6)
    # (1/2 - 1 + log 2) + (2 - 1 - log 2) = 1/2
    assert reverse_kl_k3(q_BT, p_BT).tolist() == pytest.approx([0.5])


def test_k3_of_impossible_tokens_is_finite() -> None:
    assert reverse_kl_k3(torch.tensor([[-120.0]]), torch.tensor([[0.0]])).isfinite().all()


def test_both_estimates_average_to_the_exact_divergence() -> None:
    q_V, p_V = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.2, 0.5, 0.3]).log()
    exact, _ = first_token_kl(q_V[None], p_V[None])
    for estimate in (reverse_kl_k1, reverse_kl_k3):
        expectation = (q_V.exp() * estimate(q_V[:, None], p_V[:, None])).sum()
        assert expectation.item() == pytest.approx(exact.item(), abs=1e-6)


def test_first_token_divergences_by_hand() -> None:
    q_BV, p_BV = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    reverse_B, forward_B = first_token_kl(q_BV, p_BV)
    assert reverse_B.tolist() == pytest.approx([0.1438410362])  # log 2 / 2 + log(2/3) / 2
    assert forward_B.tolist() == pytest.approx([0.1308120359])  # log(1/2) / 4 + 3 log(3/2) / 4


def test_first_token_divergences_ignore_vocabulary_padding() -> None:
    q_BV = torch.tensor([[0.5, 0.5]]).log()
    p_BV = torch.tensor([[0.25, 0.75, 0.0]]).log()
    assert first_token_kl(q_BV, p_BV)[0].tolist() == pytest.approx([0.1438410362])
