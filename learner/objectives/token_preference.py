"""DPKD between two actions at one state: the form of the authors' released code.

At every state of a response the teacher's action a^p is preferred to the student's a^q. In the
Q-function view (``learner/mdp.py``) beta log q(a)/q(a') is a difference of Q at the *same* state,
so no potential is lost. Axes: ``B`` sequence, ``T`` response token, 0 at padding; ``M`` state,
``K`` the teacher's likeliest tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from learner.objectives.events import tail_logprob


class ActionScores(NamedTuple):
    """One model's action at every state."""

    student_BT: Tensor
    """(B, T) log q(a|s); carries the gradient."""
    teacher_BT: Tensor
    """(B, T) log p(a|s); a constant."""


def token_preference(
    teacher_action: ActionScores, student_action: ActionScores, *, beta: float, share_BT: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the step's mean of -log sigma(beta [log q(a^p)/q(a^q) - log p(a^p)/p(a^q)]).

    ``share_BT`` is each token's share in the mean over the whole step, 1 / (|y| sequences), and 0
    at padding. Where both take the same action the loss is log 2 and has no gradient.
    Statistics: ``loss_preference``.
    """
    assert teacher_action.student_BT.shape == student_action.student_BT.shape == share_BT.shape
    student_BT = teacher_action.student_BT - student_action.student_BT
    teacher_BT = teacher_action.teacher_BT - student_action.teacher_BT
    loss = -(F.logsigmoid(beta * (student_BT - teacher_BT)) * share_BT).sum()
    return loss, {"loss_preference": loss.detach()}


@torch.no_grad()
def teacher_logprob_of(
    action_M: Tensor, top_ids_MK: Tensor, top_logprobs_MK: Tensor, tail_count_M: Tensor
) -> Tensor:
    """Return (M,) log p of given tokens, from what is known of the teacher's distribution.

    A token outside the K is given an equal share of the tail's mass: 1 / ``tail_count_M``, the
    number of tokens there. An approximation, which the K = V of a whole vocabulary never takes.
    A token of probability 0 (minus infinity) counts as one of the tail.
    """
    absent_MK = top_logprobs_MK.isneginf()
    match_MK = (top_ids_MK == action_M[:, None]) & ~absent_MK
    listed_M = top_logprobs_MK.masked_fill(~match_MK, -torch.inf).amax(-1)
    outside_M = tail_logprob(top_logprobs_MK) - tail_count_M.clamp(min=1).log()
    return torch.where(match_MK.any(-1), listed_M, outside_M)
