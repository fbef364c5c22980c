"""Contrastive preference optimisation, arXiv 2401.08417: no reference, a likelihood anchor."""

import torch.nn.functional as F
from torch import Tensor

from learner.objectives.sequences import SequenceScores
from learner.objectives.sft import mean_nll


def cpo(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    beta: float,
    nll_weight: float,
    pair_count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the share over ``pair_count`` pairs of CPO's loss.

    -log sigma(beta (S_q(y_t) - S_q(y_s))) - nll_weight S_q(y_t)/|y_t|. The anchor is per token,
    as every likelihood here; DPKD's paper prints, by a misprint, a ratio of y_t to itself.

    Statistics: ``loss_preference``, ``loss_nll`` (unweighted).
    """
    teacher_side.check()
    student_side.check()
    margin_B = beta * (teacher_side.student_B - student_side.student_B)
    preference = -F.logsigmoid(margin_B).sum() / pair_count
    nll = mean_nll(teacher_side.student_B, teacher_side.length_B, sequence_count=pair_count)
    loss = preference + nll_weight * nll
    return loss, {"loss_preference": preference.detach(), "loss_nll": nll.detach()}
