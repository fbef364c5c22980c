"""On-policy distillation: every token is judged by the teacher alone, discount 0."""

from torch import Tensor

from learner.objectives.policy_gradient import surrogate


def opd(
    student_BT: Tensor,
    teacher_BT: Tensor,
    behaviour_BT: Tensor,
    *,
    clip: float | None,
    share_BT: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the step's mean over y_s of -(q/mu) log(p/q), the advantage without gradient.

    ``behaviour_BT`` is log mu of the weights that drew the tokens. Without ``clip`` the expected
    value and gradient at a state that mu visits are those of KL(q || p) of its next token, at any
    policy lag; what a token does to later states, and to the length, is left out. Statistics:
    ``loss_policy_gradient``, whose value is, at lag 0, the k1 estimate of the reverse KL per
    token.
    """
    advantage_BT = teacher_BT - student_BT.detach()
    loss = surrogate(student_BT - behaviour_BT, advantage_BT, clip=clip, share_BT=share_BT)
    return loss, {"loss_policy_gradient": loss.detach()}
