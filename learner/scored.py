"""A micro-batch with what the student says of it, in the forms that objectives take.

Shape suffixes: see ``learner/batch.py``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.batch import MicroBatch
from learner.objectives.events import Events
from learner.objectives.sequences import SequenceScores
from learner.response_head import StudentScores
from learner.segments import Role


class Scored(NamedTuple):
    """A micro-batch with what the student says of it."""

    batch: MicroBatch
    scores: StudentScores
    logprobs_SBT: Tensor
    """log q of every response token, with gradient, 0 at padding."""
    pair_count: int
    """Tuples in the whole step, all micro-batches and ranks."""

    @classmethod
    def of(cls, batch: MicroBatch, scores: StudentScores, *, pair_count: int) -> "Scored":
        """Lay the tokens' log-probabilities out."""
        return cls(batch, scores, batch.unflatten(scores.logprobs_N), pair_count)

    def side(self, role: Role) -> SequenceScores:
        """Return the sums over the sequences of one role."""
        number = self.batch.asked.roles.index(role)
        return SequenceScores.of(
            self.logprobs_SBT[number],
            self.batch.teacher_logprobs_SBT[number],
            self.batch.lengths_SB[number],
            self.batch.reference_logprobs_SBT[number],
        )

    def pair(self) -> tuple[SequenceScores, SequenceScores]:
        """Return both sides of the pairs: y_t, y_s."""
        return self.side("teacher"), self.side("student")

    def share_BT(self) -> Tensor:
        """Return each token's share in the step's mean over the first side, 0 at padding."""
        lengths_B1 = self.batch.lengths_SB[0][:, None]
        share_B1 = 1 / (lengths_B1 * self.pair_count)
        token_T = torch.arange(self.logprobs_SBT.shape[-1], device=lengths_B1.device)
        return torch.where(token_T < lengths_B1, share_B1, 0.0)

    def events(self) -> Events:
        """Return both models' distributions at every state of the first side."""
        top_MK, tail_M = self.scores.top_MK, self.scores.tail_M
        teacher_MK = self.batch.top_logprobs_MK
        assert top_MK is not None and tail_M is not None and teacher_MK is not None
        return Events.of(top_MK, tail_M, teacher_MK)
