"""Divergences between student q and teacher p, for monitoring; none carries a gradient.

Estimates on student responses are unbiased for KL(q || p) only where y_s was drawn at temperature
1 and top-p 1 by the weights that now score it (policy lag 0). Axes: ``B`` pair, ``T`` response
token (padding holds 0 in both, and then adds 0 everywhere), ``V`` vocabulary.
"""

import torch
from torch import Tensor


def reverse_kl_k1(student_BT: Tensor, teacher_BT: Tensor) -> Tensor:
    """Return (B,) float64 k1 = log q(y_s)/p(y_s), nats per sequence: any sign.

    Unbiased where y_s is drawn at temperature 1.
    """
    return (student_BT.detach().double() - teacher_BT.double()).sum(-1)


def reverse_kl_k3(student_BT: Tensor, teacher_BT: Tensor) -> Tensor:
    """Return (B,) float64 k3 = sum_i p/q - 1 - log p/q, nats per sequence: never negative.

    Taken token by token and summed, which estimates the same divergence (KL of sequences is
    the expected sum of the KLs of the steps) and, unlike the ratio of whole sequences, does
    not overflow.
    """
    log_ratio_BT = teacher_BT.double() - student_BT.detach().double()
    return (torch.expm1(log_ratio_BT) - log_ratio_BT).sum(-1)


def first_token_kl(student_BV: Tensor, teacher_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Return exact (B,) KL(q || p) and KL(p || q) of the first token, from log-probabilities.

    Where the two pad their vocabularies differently (two sizes of one model family do), the
    tokens that only one has are left out and both are normalised again.
    """
    shared = min(student_BV.shape[-1], teacher_BV.shape[-1])
    log_q_BV = student_BV.detach().double()[:, :shared].log_softmax(-1)
    log_p_BV = teacher_BV.double()[:, :shared].log_softmax(-1)
    log_ratio_BV = log_q_BV - log_p_BV
    reverse_B = (log_q_BV.exp() * log_ratio_BV).sum(-1)
    forward_B = -(log_p_BV.exp() * log_ratio_BV).sum(-1)
    return reverse_B, forward_B
