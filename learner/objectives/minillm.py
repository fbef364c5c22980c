"""MiniLLM, arXiv 2306.08543: the policy gradient of KL(q || p) over sequences, stabilised.

Axes: ``B`` sequence, ``T`` response token, 0 at padding.
"""

import torch
from torch import Tensor

from learner.mdp import returns_to_go
from learner.objectives.policy_gradient import surrogate


@torch.no_grad()
def mixture_logprobs(teacher_BT: Tensor, behaviour_BT: Tensor, *, teacher_share: float) -> Tensor:
    """Return (B, T) log of the probability of each token where whole sequences are mixed.

    A sequence is drawn by p with probability alpha, else by the behaviour policy b; so given what
    was drawn before, mu(y_i | y_<i) = [a p(y_<=i) + (1-a) b(y_<=i)] / [a p(y_<i) + (1-a) b(y_<i)].
    (The paper mixes token by token, which no engine samples.)
    """
    alpha = torch.tensor(teacher_share, dtype=torch.float64, device=teacher_BT.device)
    prefix_BT = torch.logaddexp(
        alpha.log() + teacher_BT.double().cumsum(-1),
        torch.log1p(-alpha) + behaviour_BT.double().cumsum(-1),
    )
    before_BT = torch.cat([torch.zeros_like(prefix_BT[:, :1]), prefix_BT[:, :-1]], dim=-1)
    return (prefix_BT - before_BT).to(teacher_BT.dtype)


def minillm(
    student_BT: Tensor,
    teacher_BT: Tensor,
    mixture_BT: Tensor,
    divergence_BT: Tensor | None,
    *,
    clip: float,
    length_normalised: bool,
    share_BT: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the step's mean of -min(rho R, clip(rho) R) + rho KL(q || p).

    rho_i = q / mu_mix of each token, with ``mixture_BT`` = log mu_mix; r_i = log p - log q, without
    gradient; R_i the sum of r over later tokens, divided by their number when
    ``length_normalised``. ``divergence_BT`` is KL(q || p) at every state, the exact single step,
    weighted by rho without gradient; where it is None, R_i sums from the token itself instead.

    ``share_BT`` is each token's share in the mean over the whole step, 1 / (|y| sequences), and 0
    at padding. Statistics: ``loss_policy_gradient``, ``loss_single_step``.
    """
    log_ratio_BT = student_BT - mixture_BT
    token_BT = (share_BT > 0).to(student_BT.dtype)
    reward_BT = (teacher_BT - student_BT.detach()) * token_BT
    returns_BT, counts_BT = returns_to_go(reward_BT), returns_to_go(token_BT)
    if divergence_BT is not None:
        returns_BT, counts_BT = returns_BT - reward_BT, counts_BT - token_BT
    if length_normalised:
        returns_BT = returns_BT / counts_BT.clamp(min=1)
    loss = surrogate(log_ratio_BT, returns_BT, clip=clip, share_BT=share_BT)
    statistics = {"loss_policy_gradient": loss.detach()}
    if divergence_BT is not None:
        single_step = (log_ratio_BT.detach().exp() * divergence_BT * share_BT).sum()
        statistics["loss_single_step"] = single_step.detach()
        loss = loss + single_step
    return loss, statistics
