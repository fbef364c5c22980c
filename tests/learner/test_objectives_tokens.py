"""Divergences at every state: by hand, against the whole vocabulary, and at the edges."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learner.objectives.distillation import distillation
from learner.objectives.events import Events, tail_logprob
from learner.objectives.token_divergences import (
    adaptive_kl,
    forward_kl,
    generalised_jsd,
    reverse_kl,
)


def events(student: list[float], teacher: list[float], tail: float = 0.0) -> Events:
    """Return one state, ``tail`` being the student's mass outside the listed tokens."""
    student_MK = torch.tensor([student]).log().requires_grad_()
    return Events.of(student_MK, torch.tensor([tail]).log(), torch.tensor([teacher]).log())


def test_divergences_over_two_tokens_and_a_tail_by_hand() -> None:
    # p = 1/2, 1/4, tail 1/4; q = 1/8, 5/8, tail 1/4.
    state = events([0.125, 0.625], [0.5, 0.25], tail=0.25)
    assert forward_kl(state).tolist() == pytest.approx([0.4640745])  # log(4)/2 + log(0.4)/4
    assert reverse_kl(state).tolist() == pytest.approx([0.3993949])  # log(1/4)/8 + 5 log(2.5)/8
    # m = 5/16, 7/16, 1/4
    assert generalised_jsd(state, beta=0.5).tolist() == pytest.approx([0.1017417])


def test_gradients_in_log_q_by_hand() -> None:
    state = events([0.125, 0.625], [0.5, 0.25], tail=0.25)
    (forward,) = torch.autograd.grad(forward_kl(state).sum(), state.student_ME, retain_graph=True)
    (reverse,) = torch.autograd.grad(reverse_kl(state).sum(), state.student_ME)
    assert forward[0].tolist() == pytest.approx([-0.5, -0.25, -0.25])  # -p
    expected = [0.125 * (1 + math.log(0.25)), 0.625 * (1 + math.log(2.5)), 0.25]  # q (1 + log q/p)
    assert reverse[0].tolist() == pytest.approx(expected)


def test_the_generalised_jsd_has_the_two_divergences_as_its_ends() -> None:
    state = events([0.125, 0.625], [0.5, 0.25], tail=0.25)
    assert generalised_jsd(state, beta=0.0).tolist() == forward_kl(state).tolist()
    assert generalised_jsd(state, beta=1.0).tolist() == reverse_kl(state).tolist()
    # Divided by beta and by 1 - beta it tends to them, too.
    exact = Events(*(values.double() for values in state))
    near = [generalised_jsd(exact, beta=beta).item() for beta in (1e-6, 1 - 1e-6)]
    assert near[0] * 1e6 == pytest.approx(0.4640745, abs=1e-4)
    assert near[1] * 1e6 == pytest.approx(0.3993949, abs=1e-4)


def test_adaptive_kl_weighs_by_the_gaps_of_head_and_tail() -> None:
    # p = 0.5, 0.3, 0.2; q = 0.2, 0.7, 0.1: gaps 0.3, 0.4, 0.1.
    state = events([0.2, 0.7, 0.1], [0.5, 0.3, 0.2])
    forward, reverse = forward_kl(state).item(), reverse_kl(state).item()
    for head_mass, share in [(0.5, 0.3 / 0.8), (0.51, 0.7 / 0.8), (0.9, 1.0)]:
        expected = share * forward + (1 - share) * reverse
        assert adaptive_kl(state, head_mass=head_mass).item() == pytest.approx(expected), head_mass


def test_the_weights_of_adaptive_kl_carry_no_gradient() -> None:
    state = events([0.2, 0.7, 0.1], [0.5, 0.3, 0.2])
    arguments = state.student_ME
    (actual,) = torch.autograd.grad(
        adaptive_kl(state, head_mass=0.5).sum(), arguments, retain_graph=True
    )
    mixed = (0.3 * forward_kl(state) + 0.5 * reverse_kl(state)).sum() / 0.8
    (expected,) = torch.autograd.grad(mixed, arguments)
    torch.testing.assert_close(actual, expected)


def test_the_tail_event_is_never_of_the_head() -> None:
    # The head would need 0.9 and the listed tokens hold 0.5: it is those alone.
    state = events([0.3, 0.4], [0.3, 0.2], tail=0.3)  # gaps 0, 0.2 and, in the tail, 0.2
    expected = (forward_kl(state) + reverse_kl(state)) / 2
    assert adaptive_kl(state, head_mass=0.9).tolist() == pytest.approx(expected.tolist())


def divergences(state: Events) -> list[Tensor]:
    return [
        forward_kl(state),
        reverse_kl(state),
        generalised_jsd(state, beta=0.3),
        adaptive_kl(state, head_mass=0.5),
    ]


@pytest.mark.parametrize("number", range(4))
def test_equal_models_have_no_divergence_and_no_gradient(number: int) -> None:
    logits_MV = torch.randn(3, 20, generator=torch.manual_seed(0)).requires_grad_()
    log_q_MV = logits_MV.log_softmax(-1)
    top_MK, ids_MK = log_q_MV.detach().topk(5)
    rest_MV = log_q_MV.scatter(1, ids_MK, -torch.inf)
    state = Events.of(log_q_MV.gather(1, ids_MK), rest_MV.logsumexp(-1), top_MK)
    divergence_M = divergences(state)[number]
    divergence_M.sum().backward()
    assert divergence_M.abs().max().item() < 1e-6
    assert logits_MV.grad is not None and logits_MV.grad.abs().max().item() < 1e-6


def test_a_whole_vocabulary_gives_the_divergences_of_torch() -> None:
    generator = torch.manual_seed(1)
    student_MV = torch.randn(6, 50, generator=generator).mul(3).log_softmax(-1)
    teacher_MV = torch.randn(6, 50, generator=generator).mul(3).log_softmax(-1)
    teacher_MK, ids_MK = teacher_MV.sort(descending=True)
    state = Events.of(student_MV.gather(1, ids_MK), torch.full((6,), -torch.inf), teacher_MK)
    options = {"reduction": "none", "log_target": True}
    forward_M = F.kl_div(student_MV, teacher_MV, **options).sum(-1)
    reverse_M = F.kl_div(teacher_MV, student_MV, **options).sum(-1)
    torch.testing.assert_close(forward_kl(state), forward_M)
    torch.testing.assert_close(reverse_kl(state), reverse_M)


def test_a_tail_never_raises_a_divergence() -> None:
    generator = torch.manual_seed(2)
    student_MV = torch.randn(6, 50, generator=generator).mul(2).log_softmax(-1)
    teacher_MV = torch.randn(6, 50, generator=generator).mul(2).log_softmax(-1)
    teacher_MK, ids_MK = teacher_MV.sort(descending=True)
    seen = []
    for k in (5, 20, 50):
        tail_M = student_MV.scatter(1, ids_MK[:, :k], -torch.inf).logsumexp(-1)
        state = Events.of(student_MV.gather(1, ids_MK[:, :k]), tail_M, teacher_MK[:, :k])
        seen.append([forward_kl(state), reverse_kl(state), generalised_jsd(state, beta=0.3)])
    for coarse, fine in pairwise(seen):
        for left_M, right_M in zip(coarse, fine, strict=True):
            assert (left_M < right_M).all()


@pytest.mark.parametrize(
    ("teacher", "tail"),
    [
        ([0.75, 0.25], 0.0),  # no tail at all
        ([0.75, 0.250001], 0.0),  # rounding above 1
        ([0.75, 0.250001], 1e-9),  # the student has a tail, the teacher none
        ([0.5, 0.25], 1e-30),  # the teacher has one, the student hardly
        ([0.5, 0.25], 0.0),  # only the teacher has other tokens
    ],
)
@pytest.mark.parametrize("number", range(4))
def test_values_and_gradients_stay_finite(number: int, teacher: list[float], tail: float) -> None:
    student_MK = torch.tensor([[0.5, 0.5]]).log().requires_grad_()
    tail_M = torch.tensor([tail]).log().requires_grad_()
    divergence_M = divergences(Events.of(student_MK, tail_M, torch.tensor([teacher]).log()))[number]
    divergence_M.sum().backward()
    for values in (divergence_M, student_MK.grad, tail_M.grad):
        assert values is not None and values.isfinite().all()


def test_a_token_that_only_one_model_has_is_of_the_tail() -> None:
    # The second listed token is unknown to the student, or impossible to the teacher.
    state = events([0.4, 0.0, 0.4], [0.5, 0.25, 0.125], tail=0.2)
    merged = events([0.4, 0.4], [0.5, 0.125], tail=0.2)
    for actual, expected in zip(divergences(state), divergences(merged), strict=True):
        assert actual.tolist() == pytest.approx(expected.tolist())


def test_the_teacher_s_tail_is_what_is_missing_but_at_least_rounding() -> None:
    logprobs_MK = torch.tensor([[0.5, 0.25], [0.75, 0.25], [0.75, 0.25001]]).log()
    assert tail_logprob(logprobs_MK).exp().tolist() == pytest.approx([0.25, 2**-23, 2**-23])


def test_distillation_mixes_the_mean_divergence_with_the_likelihood() -> None:
    # Sequences of 2 and 1 tokens, of 2 in the step: shares 1/4, 1/4 and 1/2.
    share_BT = torch.tensor([[0.25, 0.25], [0.5, 0.0]])
    divergence_BT = torch.tensor([[1.0, 3.0], [0.5, 0.0]], requires_grad=True)
    student_BT = torch.tensor([[-2.0, -4.0], [-1.0, 0.0]], requires_grad=True)
    loss, statistics = distillation(divergence_BT, student_BT, nll_weight=0.25, share_BT=share_BT)
    loss.backward()
    assert statistics == {"loss_divergence": 1.25, "loss_nll": 2.0}
    assert loss.item() == 0.75 * 1.25 + 0.25 * 2.0
    assert divergence_BT.grad is not None and student_BT.grad is not None
    assert divergence_BT.grad.tolist() == [[0.1875, 0.1875], [0.375, 0.0]]
    assert student_BT.grad.tolist() == [[-0.0625, -0.0625], [-0.125, 0.0]]
