"""Negative log-likelihood of given sequences: SFT, and the language-model term of DPKD."""

import torch
from torch import Tensor


def mean_nll(student_B: Tensor, length_B: Tensor, *, sequence_count: int) -> Tensor:
    """Return this batch's share of the mean over sequences of -S_q(y) / |y|, nats per token.

    ``student_B`` (B,) holds S_q(y) = sum_i log q(y_i | context), ``length_B`` (B,) the tokens
    |y| that were predicted; ``sequence_count`` counts the sequences of the whole step, so
    that shares of micro-batches and ranks add up to the mean.

    Every sequence weighs the same, whatever its length. Supervised fine-tuning takes it on
    gold responses. DPKD's L_pt = -log q(d) (section 3.1) takes it on corpus documents: the
    paper writes the sum over the document; divided by its length here, lambda means the same
    for documents of all lengths and is commensurate with the length-normalised Eq 9.
    """
    for values in (student_B, length_B):
        assert values.dim() == 1 and values.dtype in (torch.float32, torch.float64)
    assert student_B.shape == length_B.shape and sequence_count >= 1
    return -(student_B / length_B).sum() / sequence_count
