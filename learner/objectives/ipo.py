"""Identity preference optimisation, arXiv 2310.12036 Eq 17, the teacher as the reference."""

from torch import Tensor

from learner.objectives.dpkd import implicit_reward, reward_statistics
from learner.objectives.sequences import SequenceScores


def ipo(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    tau: float,
    length_normalised: bool,
    pair_count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the share over ``pair_count`` pairs of (h(y_t) - h(y_s) - 1/(2 tau))^2.

    h(y) = (S_q - S_p)(y), divided by |y| when ``length_normalised``. The paper prints sums; token
    averages are what common implementations take.

    Statistics: ``loss_preference``, and DPKD's rewards with tau as beta.
    """
    teacher_side.check()
    student_side.check()
    assert pair_count >= 1 and tau > 0
    teacher_B = implicit_reward(teacher_side, beta=1.0, length_normalised=length_normalised)
    student_B = implicit_reward(student_side, beta=1.0, length_normalised=length_normalised)
    loss = (teacher_B - student_B - 1 / (2 * tau)).square().sum() / pair_count
    statistics = reward_statistics(
        teacher_side,
        student_side,
        beta=tau,
        length_normalised=length_normalised,
        pair_count=pair_count,
    )
    return loss, {"loss_preference": loss.detach()} | statistics
