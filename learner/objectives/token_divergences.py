"""Divergences between the teacher p and the student q at every state, with a gradient in q.

Axes: ``M`` state, ``E`` event (``learner/objectives/events.py``); nats per state.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from learner.objectives.events import Events


def forward_kl(events: Events) -> Tensor:
    """Return (M,) KL(p || q) = sum p log p/q: word-level distillation."""
    return _kl(events.teacher_ME, events.student_ME)


def reverse_kl(events: Events) -> Tensor:
    """Return (M,) KL(q || p) = sum q log q/p."""
    return _kl(events.student_ME, events.teacher_ME)


def generalised_jsd(events: Events, *, beta: float) -> Tensor:
    """Return (M,) beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q.

    GKD, arXiv 2306.13649 Eq 1. At its ends, where the formula is 0, its limits stand for it as
    in common implementations: beta = 0 is KL(p || q), beta = 1 is KL(q || p).
    """
    assert 0 <= beta <= 1
    if beta == 0:
        return forward_kl(events)
    if beta == 1:
        return reverse_kl(events)
    student_ME, teacher_ME = events
    mixture_ME = torch.logaddexp(teacher_ME + math.log(beta), student_ME + math.log1p(-beta))
    return beta * _kl(teacher_ME, mixture_ME) + (1 - beta) * _kl(student_ME, mixture_ME)


def adaptive_kl(events: Events, *, head_mass: float) -> Tensor:
    """Return (M,) forward and reverse KL weighted by where p and q differ: AKL, arXiv 2404.02657.

    The head is the smallest set of the teacher's likeliest tokens whose mass is at least
    ``head_mass`` (the tail event is never in it), g_h and g_t are sum |p - q| over the head and
    over the rest, without gradient: g_h/(g_h + g_t) KL(p || q) + g_t/(g_h + g_t) KL(q || p).
    """
    assert 0 < head_mass < 1
    p_ME, q_ME = events.teacher_ME.exp(), events.student_ME.detach().exp()
    before_ME = F.pad(p_ME[:, :-1].cumsum(-1), (1, 0))
    head_ME = before_ME < head_mass
    head_ME[:, -1] = False
    gap_ME = (p_ME - q_ME).abs()
    gap_M = gap_ME.sum(-1).clamp(min=torch.finfo(gap_ME.dtype).tiny)
    share_M = (gap_ME * head_ME).sum(-1) / gap_M
    return share_M * forward_kl(events) + (1 - share_M) * reverse_kl(events)


def _kl(left_ME: Tensor, right_ME: Tensor) -> Tensor:
    return (left_ME.exp() * (left_ME - right_ME)).sum(-1)
