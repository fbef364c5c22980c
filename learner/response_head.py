"""The output head: log-probabilities of a few tokens a row, never a whole sequence's logits.

Logits are computed as many rows at a time as a number of values allows, so the head's peak memory
is that number's whatever lengths and vocabulary, beside the J values a row that are asked. Where
all rows fit at once what was computed is kept for the backward pass; else it is computed again.
torch only. Shape suffixes: see ``learner/batch.py``.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.objectives.actions import choose
from learner.precision import rows_to_add


class StudentScores(NamedTuple):
    """What the student says of a micro-batch; log-probabilities are float32 at least."""

    logprobs_N: Tensor
    """(N,) log q of the response tokens."""
    first_BV: Tensor | None = None
    """(B, V) log q(. | x), without gradient; None: not asked."""
    top_MK: Tensor | None = None
    """(M, K) log q of the teacher's likeliest tokens; minus infinity for an id that the student's
    vocabulary lacks, or that is -1. None, as all below: not asked."""
    tail_M: Tensor | None = None
    """(M,) log of the mass of all other tokens; minus infinity where there is none."""
    tail_count_M: Tensor | None = None
    """(M,) how many those are."""
    action_ids_M: Tensor | None = None
    """(M,) int64, the student's action at each state. None, as below: not asked."""
    action_logprobs_M: Tensor | None = None
    """(M,) log q of it."""


class _ChunkedLogprobs(torch.autograd.Function):
    """log softmax(h W^T + b)[targets] by chunks of rows."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, *rest: Any
    ) -> Tensor:
        """``rest`` is ``(targets_NJ, listed_NJ, chunk)``; returns (N, J), float32 at least.

        Unless ``listed_NJ`` (bool) is None a last column follows: the log mass of the tokens
        that are not listed, summed over them rather than taken as 1 minus the others.
        """
        targets_NJ, listed_NJ, chunk = rest
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_NJ, listed_NJ)
        ctx.chunk, ctx.kept = chunk, None
        found = []
        for rows in _chunks(hidden_ND, chunk):
            logprobs = _logits(hidden_ND[rows], weight_VD, bias_V).log_softmax(-1)
            found.append(logprobs.gather(1, targets_NJ[rows].long()))
            if listed_NJ is not None:
                tail = _unlisted(logprobs, targets_NJ[rows], listed_NJ[rows])
                found[-1] = torch.cat([found[-1], tail.logsumexp(-1, keepdim=True)], dim=1)
            if len(hidden_ND) <= chunk and any(ctx.needs_input_grad):
                ctx.kept = logprobs
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of what ``forward`` took."""
        (grad_NJ,) = grads
        hidden_ND, weight_VD, bias_V, targets_NJ, listed_NJ = ctx.saved_tensors
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=grad_NJ.dtype)
        grad_bias_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=grad_NJ.dtype)
        kept, ctx.kept = ctx.kept, None  # overwritten below: a second pass computes it again
        for rows in _chunks(hidden_ND, ctx.chunk):
            hidden, grad = hidden_ND[rows], grad_NJ[rows]
            logprobs = kept
            if logprobs is None:
                logprobs = _logits(hidden, weight_VD, bias_V).log_softmax(-1)
            listed = None if listed_NJ is None else listed_NJ[rows]
            grad_logits = _grad_logits(logprobs, targets_NJ[rows], listed, grad)
            if grad_bias_V is not None:
                grad_bias_V += grad_logits.sum(0)
            grad_logits = grad_logits.to(weight_VD.dtype)
            torch.mm(grad_logits, weight_VD, out=grad_hidden_ND[rows])
            if grad_weight_VD.dtype == grad_logits.dtype:
                grad_weight_VD.addmm_(grad_logits.T, hidden)
            else:
                grad_weight_VD += grad_logits.T @ hidden
        grad_weight = grad_weight_VD.to(weight_VD.dtype)
        grad_bias = None if grad_bias_V is None else grad_bias_V.to(weight_VD.dtype)
        return grad_hidden_ND, grad_weight, grad_bias, None, None, None


def _grad_logits(
    logprobs_NV: Tensor, targets_NJ: Tensor, listed_NJ: Tensor | None, grad_NJ: Tensor
) -> Tensor:
    """Return (N, V) the logits' gradient, in the memory of ``logprobs_NV``.

    D log softmax(z)[j] / dz = onehot(j) - softmax(z); the tail has the softmax over its own tokens
    for a onehot, 0 where there are none.
    """
    tail = None
    columns = targets_NJ.shape[1]
    if listed_NJ is not None:
        tail = _unlisted(logprobs_NV, targets_NJ, listed_NJ)
        mass = tail.logsumexp(-1, keepdim=True).clamp(min=torch.finfo(tail.dtype).min)
        tail.sub_(mass).exp_().mul_(grad_NJ[:, columns:])
    grad_NV = logprobs_NV.exp_().mul_(-grad_NJ.sum(-1, keepdim=True))
    grad_NV.scatter_add_(1, targets_NJ.long(), grad_NJ[:, :columns])
    return grad_NV if tail is None else grad_NV.add_(tail)


def _chunks(hidden_ND: Tensor, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, len(hidden_ND), chunk)]


def _logits(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Return the head's output, raised to float32 where the model computes in less."""
    logits = F.linear(hidden, weight_VD, bias_V)
    return logits if logits.dtype == torch.float64 else logits.float()


def _unlisted(values_NV: Tensor, targets_NJ: Tensor, listed_NJ: Tensor) -> Tensor:
    """Return (N, V) a copy, minus infinity at the listed targets (which may repeat)."""
    count_NV = torch.zeros_like(values_NV).scatter_add_(
        1, targets_NJ.long(), listed_NJ.to(values_NV.dtype)
    )
    return values_NV.masked_fill(count_NV > 0, -torch.inf)


class ResponseHead(nn.Module):
    """The model's output head, by reference, giving log-probabilities of given targets.

    A module that holds the very parameter of ``lm_head`` (which may be the embedding's too),
    so that what shards parameters by module, as ZeRO-3 does, gathers it around this call,
    forward and backward.
    """

    def __init__(self, linear: nn.Linear, logits_at_once: int) -> None:
        """Share ``linear``'s parameters; hold at most so many logits at a time, or one row's."""
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.vocabulary = len(linear.weight)  # read now: a sharded parameter has no shape
        self.chunk = max(1, logits_at_once // self.vocabulary)

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        first_BD: Tensor | None = None,
        *,
        top_ids_MK: Tensor | None = None,
        actions: str | None = None,
        uniform_M: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Return the fields of ``StudentScores``, as a tuple that ZeRO's hooks can take apart."""
        first_BV = None
        if first_BD is not None:
            with torch.no_grad():
                first_BV = _logits(first_BD, self.weight, self.bias).log_softmax(-1)
        if top_ids_MK is None:
            return self._logprobs(hidden_ND, targets_N[:, None])[:, 0], first_BV
        states = len(top_ids_MK)
        logprobs_N, *others = self._states(
            hidden_ND[:states], targets_N[:states], top_ids_MK, actions, uniform_M
        )
        if len(hidden_ND) > states:
            rest_N = self._logprobs(hidden_ND[states:], targets_N[states:, None])[:, 0]
            logprobs_N = torch.cat([logprobs_N, rest_N])
        return logprobs_N, first_BV, *others

    def _states(
        self,
        hidden_MD: Tensor,
        targets_M: Tensor,
        top_ids_MK: Tensor,
        actions: str | None,
        uniform_M: Tensor | None,
    ) -> tuple[Any, ...]:
        """Return (M,) log q of the targets, and what ``StudentScores`` holds of every state."""
        k = top_ids_MK.shape[1]
        listed_MK = (top_ids_MK >= 0) & (top_ids_MK < self.vocabulary)
        action_ids_M = None
        targets = [targets_M[:, None], top_ids_MK.clamp(0, self.vocabulary - 1)]
        if actions is not None:
            action_ids_M = self._actions(hidden_MD, uniform_M)
            targets.append(action_ids_M[:, None])
        targets_MJ = torch.cat([target.int() for target in targets], dim=1)
        listed_MJ = F.pad(listed_MK, (1, targets_MJ.shape[1] - k - 1))
        logprobs_MJ = self._logprobs(hidden_MD, targets_MJ, listed_MJ)
        return (
            logprobs_MJ[:, 0],
            logprobs_MJ[:, 1 : k + 1].masked_fill(~listed_MK, -torch.inf),
            logprobs_MJ[:, -1],
            (self.vocabulary - listed_MK.sum(-1)).to(logprobs_MJ.dtype),
            action_ids_M,
            None if action_ids_M is None else logprobs_MJ[:, k + 1],
        )

    def _logprobs(
        self, hidden_ND: Tensor, targets_NJ: Tensor, listed_NJ: Tensor | None = None
    ) -> Tensor:
        extra = (0, 0, 0, rows_to_add(len(hidden_ND), hidden_ND.dtype))
        if listed_NJ is not None:
            listed_NJ = F.pad(listed_NJ, extra)
        logprobs_NJ = _ChunkedLogprobs.apply(
            F.pad(hidden_ND, extra),
            self.weight,
            self.bias,
            F.pad(targets_NJ, extra),
            listed_NJ,
            self.chunk,
        )
        return logprobs_NJ[: len(hidden_ND)]

    @torch.no_grad()
    def _actions(self, hidden_MD: Tensor, uniform_M: Tensor | None) -> Tensor:
        """Return (M,) the student's action at each state; see ``choose``."""
        chosen = []
        for rows in _chunks(hidden_MD, self.chunk):
            logprobs = _logits(hidden_MD[rows], self.weight, self.bias).log_softmax(-1)
            chosen.append(choose(logprobs, None if uniform_M is None else uniform_M[rows]))
        return torch.cat(chosen)
