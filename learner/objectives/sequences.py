"""What objectives know about a batch of responses: sums of log-probabilities, and lengths.

Axes: ``B`` one sequence of each pair, ``T`` response tokens (padded; padding holds 0).
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class SequenceScores(NamedTuple):
    """One side of a batch of pairs: every y_t, or every y_s."""

    student_B: Tensor
    """(B,) float, S_q(y) = sum_i log q(y_i | x, y_<i), nats; carries the gradient."""
    teacher_B: Tensor
    """(B,) float, S_p(y), nats; a constant. 0 where the objective asks no teacher."""
    length_B: Tensor
    """(B,) float, |y|: tokens of the response, the end-of-sequence token included."""
    reference_B: Tensor | None = None
    """(B,) float, S_ref(y) of the initial student, nats; a constant. None: not asked."""

    @classmethod
    def of(
        cls,
        student_BT: Tensor,
        teacher_BT: Tensor,
        length_B: Tensor,
        reference_BT: Tensor | None = None,
    ) -> Self:
        """Sum per-token log-probabilities, (B, T) with 0 at padding, into sequence scores."""
        assert student_BT.shape == teacher_BT.shape and student_BT.dim() == 2
        reference_B = None if reference_BT is None else reference_BT.sum(-1)
        return cls(student_BT.sum(-1), teacher_BT.sum(-1), length_B, reference_B)

    @property
    def mean_student_B(self) -> Tensor:
        """(B,) S_q(y) / |y|, nats per token."""
        return self.student_B / self.length_B

    def check(self) -> None:
        """Assert that all are vectors of one length in full precision."""
        for name, values in self._asdict().items():
            if values is None:
                continue
            assert values.dim() == 1, f"{name} has rank {values.dim()}"
            assert values.dtype in (torch.float32, torch.float64), f"{name} is {values.dtype}"
            assert values.shape == self.student_B.shape, f"{name} is {tuple(values.shape)}"
