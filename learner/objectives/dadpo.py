"""daDPO, arXiv 2506.15717: preference with two references, the initial student and the teacher.

Reconstructed from the abstract: the optimum of max E[r] - b1 KL(q || ref) - b2 KL(q || p) is
q ~ ref^(b1/B) p^(b2/B) e^(r/B), B = b1 + b2. b2 = 0 is DPO with the initial student as reference
(dDPO, arXiv 2310.16944), b1 = 0 is DPKD's Eq 8.
"""

import torch.nn.functional as F
from torch import Tensor

from learner.objectives.sequences import SequenceScores


def dadpo(
    teacher_side: SequenceScores,
    student_side: SequenceScores,
    *,
    beta_reference: float,
    beta_teacher: float,
    length_normalised: bool,
    pair_count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the share over ``pair_count`` pairs of -log sigma(r(y_t) - r(y_s)).

    r(y) = (B S_q - b1 S_ref - b2 S_p)(y), divided by |y| when ``length_normalised``.
    Statistics: ``loss_preference``.
    """
    teacher_side.check()
    student_side.check()
    assert pair_count >= 1 and beta_reference + beta_teacher > 0
    rewards = []
    for side in (teacher_side, student_side):
        assert side.reference_B is not None, "daDPO needs the initial student's log-probabilities"
        reward_B = beta_reference * (side.student_B - side.reference_B)
        reward_B = reward_B + beta_teacher * (side.student_B - side.teacher_B)
        rewards.append(reward_B / side.length_B if length_normalised else reward_B)
    loss = -F.logsigmoid(rewards[0] - rewards[1]).sum() / pair_count
    return loss, {"loss_preference": loss.detach()}
