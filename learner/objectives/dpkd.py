"""Direct Preference Knowledge Distillation, arXiv 2406.19774, sequence level (Eq 8 and 9).

The student q is its own reward model: its implicit reward is its log-ratio to the teacher p,
which plays the reference policy. The loss asks that the teacher's response y_t be preferred
to the student's own y_s in the Bradley-Terry sense.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from learner.objectives.sequences import SequenceScores


def implicit_reward(scores: SequenceScores, *, beta: float, length_normalised: bool) -> Tensor:
    """Return (B,) r(y) = beta (S_q - S_p)(y), divided by |y| when ``length_normalised``.

    In nats times beta. It is the paper's reward up to beta log Z(x), which cancels in pairs.
    """
    reward_B = beta * (scores.student_B - scores.teacher_B)
    return reward_B / scores.length_B if length_normalised else reward_B


@torch.no_grad()
def reward_statistics(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    beta: float,
    length_normalised: bool,
    pair_count: int,
) -> dict[str, Tensor]:
    """Return shares of means over ``pair_count`` pairs of the implicit rewards.

    ``reward_teacher``, ``reward_student``, ``reward_margin``, ``preference_accuracy``. On fresh
    pairs, both drawn at temperature 1, the expected margin is never positive and is zero only at
    q = p; a rising margin is not "better" by itself.
    """
    teacher_B = implicit_reward(teacher_side, beta=beta, length_normalised=length_normalised)
    student_B = implicit_reward(student_side, beta=beta, length_normalised=length_normalised)
    margin_B = teacher_B - student_B
    return {
        "reward_teacher": teacher_B.sum() / pair_count,
        "reward_student": student_B.sum() / pair_count,
        "reward_margin": margin_B.sum() / pair_count,
        "preference_accuracy": (margin_B > 0).sum() / pair_count,
    }


def dpkd(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    beta: float,
    length_normalised: bool,
    pair_count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss -log sigma(r(y_t) - r(y_s)), Eq 9 (Eq 8 unless ``length_normalised``).

    Loss and statistics are this batch's *share* of a mean over ``pair_count`` pairs, the
    number in the whole step: shares of micro-batches and of ranks add up, so the loss does
    not depend on how a step was cut.

    The gradient pushes S_q(y_t) up and S_q(y_s) down with weight
    beta sigma(r(y_s) - r(y_t)): large where the order is wrong. (The gradient printed in the
    paper, Eq 11, has the opposite sign inside sigma.)

    Statistics, scalars without gradient: ``loss_preference`` and ``reward_statistics``.
    """
    teacher_side.check()
    student_side.check()
    assert pair_count >= 1
    teacher_B = implicit_reward(teacher_side, beta=beta, length_normalised=length_normalised)
    student_B = implicit_reward(student_side, beta=beta, length_normalised=length_normalised)
    loss = -F.logsigmoid(teacher_B - student_B).sum() / pair_count
    statistics = reward_statistics(
        teacher_side,
        student_side,
        beta=beta,
        length_normalised=length_normalised,
        pair_count=pair_count,
    )
    return loss, {"loss_preference": loss.detach()} | statistics
