"""PLaD, arXiv 2406.02886: a hinge on sequence likelihoods, from the teacher's text alone.

The paper's score and constants were not at hand; what is here is a reconstruction.
"""

from torch import Tensor

from learner.objectives.sequences import SequenceScores
from learner.objectives.sft import mean_nll


def plad(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    margin_B: Tensor,
    *,
    length_normalised: bool,
    mle_weight: float,
    pair_count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the share over ``pair_count`` pairs of PLaD's loss.

    max(0, margin - log q(y_t) + log q(y_s)) - mle_weight S_q(y_t)/|y_t|, where log q(y) is S_q(y),
    or S_q(y)/|y| when ``length_normalised``. ``margin_B`` (B,) in its unit is beta in the ranking
    form, and beta (s(y_t) - s(y_s)) in the margin form, s being a score of the response.

    Statistics: ``loss_preference``, ``loss_nll`` (unweighted).
    """
    teacher_side.check()
    student_side.check()
    assert margin_B.shape == teacher_side.student_B.shape
    gap_B = teacher_side.student_B - student_side.student_B
    if length_normalised:
        gap_B = teacher_side.mean_student_B - student_side.mean_student_B
    preference = (margin_B - gap_B).relu().sum() / pair_count
    nll = mean_nll(teacher_side.student_B, teacher_side.length_B, sequence_count=pair_count)
    loss = preference + mle_weight * nll
    return loss, {"loss_preference": preference.detach(), "loss_nll": nll.detach()}
