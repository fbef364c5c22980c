"""Both models' distributions at a state, over K tokens and a tail that stands for all others.

A divergence over these K + 1 events is a lower bound of the one over the vocabulary, and equal
to it where the K tokens are the vocabulary. Axes: ``M`` state, ``K`` the teacher's likeliest
tokens, ``E`` event, E = K + 1, the tail last.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDING = torch.finfo(torch.float32).eps
"""Smallest mass of the teacher's tail: 1 - sum is not known more closely."""
_NOTHING = math.log(torch.finfo(torch.float32).tiny)
"""Log-probability that both models give to an event that does not exist: no divergence feels it,
and all stays finite."""


class Events(NamedTuple):
    """Log-probabilities of the same events by both models, all finite."""

    student_ME: Tensor
    """(M, E) float, log q; carries the gradient."""
    teacher_ME: Tensor
    """(M, E) float, log p; a constant. The K tokens are likeliest first."""

    @classmethod
    def of(cls, student_MK: Tensor, student_tail_M: Tensor, teacher_MK: Tensor) -> "Events":
        """Join the K tokens and the tail.

        ``student_MK`` and ``teacher_MK`` (M, K) are log-probabilities of the same tokens, and
        ``student_tail_M`` (M,) is the log mass of every other token. Minus infinity in
        ``student_MK`` says that the student has no such token, or that the teacher gives it
        probability 0: it belongs to the tail, in both models. Where the student's tail is empty
        (minus infinity; the K tokens are its vocabulary) there is no such event, and what mass
        the teacher's K tokens lack is rounding, or tokens that only the teacher has.
        """
        assert student_MK.shape == teacher_MK.shape and student_MK.dim() == 2
        assert student_tail_M.shape == student_MK.shape[:1]
        for values in (student_MK, student_tail_M, teacher_MK):
            assert values.dtype in (torch.float32, torch.float64), values.dtype
        absent_MK, absent_M = student_MK.isneginf(), student_tail_M.isneginf()
        absent_ME = torch.cat([absent_MK, absent_M[:, None]], dim=1)
        teacher_tail_M = tail_logprob(teacher_MK.masked_fill(absent_MK, -torch.inf))
        student_ME = torch.cat([student_MK, student_tail_M[:, None]], dim=1)
        teacher_ME = torch.cat([teacher_MK, teacher_tail_M[:, None]], dim=1)
        return cls(
            student_ME.masked_fill(absent_ME, _NOTHING),
            teacher_ME.masked_fill(absent_ME, _NOTHING),
        )


def tail_logprob(logprobs_MK: Tensor) -> Tensor:
    """Return (M,) log(1 - sum exp), what K log-probabilities lack to 1, at least float32's eps."""
    mass_M = 1 - logprobs_MK.double().exp().sum(-1)
    return mass_M.clamp(min=_ROUNDING).log().to(logprobs_MK.dtype)
