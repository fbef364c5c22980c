"""Agreement with TRL 1.16.0: the expected values were computed by its own code, in float32."""

import pytest
import torch
from torch import Tensor

from learner.objectives.cpo import cpo
from learner.objectives.distillation import distillation
from learner.objectives.dpkd import dpkd
from learner.objectives.events import Events
from learner.objectives.ipo import ipo
from learner.objectives.sequences import SequenceScores
from learner.objectives.simpo import simpo
from learner.objectives.token_divergences import generalised_jsd

STUDENT = [[-1.0, -0.5, -2.0, 0], [-0.25, -1.5, 0, 0], [-0.75, -1.25, 0, 0], [-2.0, -0.5, -1, -3]]
TEACHER = [[-0.5, -0.25, -1, 0], [-1, -2, 0, 0], [-1.5, -0.5, 0, 0], [-1, -1, -2.5, -1.5]]
LENGTHS = [3.0, 2.0, 2.0, 4.0]
"""Two preferred responses, then two that are not."""


def pairs() -> tuple[Tensor, SequenceScores, SequenceScores]:
    student_BT = torch.tensor(STUDENT, requires_grad=True)
    teacher_BT, length_B = torch.tensor(TEACHER), torch.tensor(LENGTHS)
    better, worse = (
        SequenceScores.of(student_BT[rows], teacher_BT[rows], length_B[rows])
        for rows in (slice(0, 2), slice(2, 4))
    )
    return student_BT, better, worse


@pytest.mark.parametrize(
    ("loss_type", "expected", "gradient"),
    [
        # DPOTrainer._compute_loss with the teacher as its reference model.
        (
            "sigmoid_norm",
            0.819588840007782,
            [-0.2541806399822235, -0.09121275693178177, 0.38127097487449646, 0.045606378465890884],
        ),
        (
            "sigmoid",
            0.6969704627990723,
            [-0.02718193642795086, -0.02281806617975235, 0.02718193642795086, 0.02281806617975235],
        ),
        (
            "ipo",
            1.284722089767456,
            [-0.5277777314186096, -0.125, 0.7916666269302368, 0.0625],
        ),
    ],
)
def test_dpo_losses_are_trl_s(loss_type: str, expected: float, gradient: list[float]) -> None:
    student_BT, better, worse = pairs()
    if loss_type == "ipo":
        loss, _ = ipo(better, worse, tau=0.5, length_normalised=True, pair_count=2)
    else:  # Eq 9 at beta 2, Eq 8 at beta 0.1
        normalised = loss_type == "sigmoid_norm"
        beta = 2.0 if normalised else 0.1
        loss, _ = dpkd(better, worse, beta=beta, length_normalised=normalised, pair_count=2)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert student_BT.grad is not None
    assert student_BT.grad[:, 0].tolist() == pytest.approx(gradient, rel=1e-5)


def test_cpo_and_simpo_are_trl_s() -> None:
    # CPOTrainer.cpo_loss: "sigmoid" at beta 0.1 without its likelihood term, "simpo" at beta 2 and
    # gamma 0.5, which TRL takes in the same unit.
    _, better, worse = pairs()
    loss, _ = cpo(better, worse, beta=0.1, nll_weight=0.0, pair_count=2)
    assert loss.item() == pytest.approx(0.6272730827331543, rel=1e-6)
    loss, _ = simpo(better, worse, beta=2.0, gamma=0.5, pair_count=2)
    assert loss.item() == pytest.approx(0.7537399530410767, rel=1e-6)


STUDENT_LOGITS = [[0.5, -1, 2, 0, 1], [1.5, 0.25, -0.5, -2, 0], [0, 0, 1, 3, -1]]
TEACHER_LOGITS = [[1, 0, 1, -1, 2], [0, 0.5, 1, -1, -0.5], [2, -2, 0.5, 1, 0]]


@pytest.mark.parametrize(
    ("beta", "expected", "gradient"),
    [
        # GKDTrainer.generalized_jsd_loss, reduction batchmean over the three tokens; the gradient
        # is of the first token's logits.
        (
            0.0,
            0.8092971444129944,
            [
                -0.02196299470961094,
                -0.014141203835606575,
                0.12383507192134857,
                0.016759254038333893,
                -0.10449016839265823,
            ],
        ),
        (
            0.1,
            0.0667496770620346,
            [
                -0.002080035861581564,
                -0.0012193743605166674,
                0.010842113755643368,
                0.0014673206023871899,
                -0.00901002436876297,
            ],
        ),
        (
            0.5,
            0.1629856824874878,
            [
                -0.00684772664681077,
                -0.0030722706578671932,
                0.028732646256685257,
                0.0038885411340743303,
                -0.022701187059283257,
            ],
        ),
        (
            0.9,
            0.058826759457588196,
            [
                -0.0029811833519488573,
                -0.0011070629116147757,
                0.010805968195199966,
                0.001462427549995482,
                -0.008180148899555206,
            ],
        ),
        (
            1.0,
            0.6656500697135925,
            [
                -0.03522786870598793,
                -0.01253226213157177,
                0.12363021820783615,
                0.01673153229057789,
                -0.09260159730911255,
            ],
        ),
    ],
)
def test_the_generalised_jsd_is_trl_s(beta: float, expected: float, gradient: list[float]) -> None:
    logits_MV = torch.tensor(STUDENT_LOGITS, requires_grad=True)
    teacher_MV = torch.tensor(TEACHER_LOGITS).log_softmax(-1)
    events = Events.of(logits_MV.log_softmax(-1), torch.full((3,), -torch.inf), teacher_MV)
    divergence_BT = generalised_jsd(events, beta=beta)[None]
    share_BT = torch.full((1, 3), 1 / 3)
    loss, _ = distillation(divergence_BT, torch.zeros(1, 3), nll_weight=0.0, share_BT=share_BT)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits_MV.grad is not None
    assert logits_MV.grad[0].tolist() == pytest.approx(gradient, rel=1e-4, abs=1e-7)
