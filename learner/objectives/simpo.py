"""SimPO, arXiv 2405.14734 Eq 6: likelihood per token as the reward, and a target margin."""

import torch.nn.functional as F
from torch import Tensor

from learner.objectives.sequences import SequenceScores


def simpo(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    beta: float,
    gamma: float,
    pair_count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the share over ``pair_count`` pairs of SimPO's loss.

    -log sigma(beta S_q(y_t)/|y_t| - beta S_q(y_s)/|y_s| - gamma). Statistics:
    ``loss_preference``.
    """
    teacher_side.check()
    student_side.check()
    assert pair_count >= 1
    margin_B = beta * (teacher_side.mean_student_B - student_side.mean_student_B) - gamma
    loss = -F.logsigmoid(margin_B).sum() / pair_count
    return loss, {"loss_preference": loss.detach()}
