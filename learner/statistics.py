"""What a learning step tells about itself, in a form that adds up over micro-batches and ranks.

Every value is either a *share* of a mean or total over the whole batch (shares are summed) or
a maximum. So a step's statistics, like its loss, do not depend on how it was cut.
Shape suffixes: see ``learner/batch.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from configs.wire import PreferenceTuple
from learner.batch import MicroBatch, Role, segment
from learner.objectives.divergences import first_token_kl, reverse_kl_k1, reverse_kl_k3


class BatchTotals(NamedTuple):
    """Counts over the whole batch, all ranks: the denominators, known before any forward."""

    pairs: int
    tokens: dict[Role, int]
    """Response tokens by role."""

    @classmethod
    def of(cls, tuples: Sequence[PreferenceTuple], roles: Sequence[Role]) -> Self:
        """Count; every rank holds the whole batch, so no message is needed."""
        tokens: dict[Role, int] = {
            r: sum(len(segment(t, r).target_ids_T) for t in tuples) for r in roles
        }
        return cls(len(tuples), tokens)

    def statistics(self, tuples: Sequence[PreferenceTuple], step: int) -> dict[str, float]:
        """Return the statistics that need no model: counts, mean lengths, policy lag."""
        values: dict[str, float] = {"pairs": self.pairs, "tokens": sum(self.tokens.values())}
        for role in ("teacher", "student"):
            if role in self.tokens:
                values[f"response_length_{role}"] = self.tokens[role] / self.pairs
        lags = [step - t.weight_version for t in tuples if t.weight_version is not None]
        if lags:
            values |= {"policy_lag_mean": sum(lags) / len(lags), "policy_lag_max": max(lags)}
        return values


def policy_shares(
    batch: MicroBatch, student_BT: Tensor, first_BV: Tensor | None, totals: BatchTotals
) -> dict[str, Tensor]:
    """Return how far q is from p on y_s, as shares of means over the whole batch.

    ``student_BT`` is log q of the student responses, ``first_BV`` log q(. | x) or None.
    """
    teacher_BT = batch.teacher_logprobs_KBT[batch.roles.index("student")]
    k1_sum = reverse_kl_k1(student_BT, teacher_BT).sum()
    shares = {
        "reverse_kl_k1": k1_sum / totals.pairs,
        "reverse_kl_k3": reverse_kl_k3(student_BT, teacher_BT).sum() / totals.pairs,
        "reverse_kl_per_token": k1_sum / totals.tokens["student"],
    }
    if first_BV is not None and batch.teacher_first_BV is not None:
        reverse_B, forward_B = first_token_kl(first_BV, batch.teacher_first_BV)
        shares["reverse_kl_first_token"] = reverse_B.sum() / totals.pairs
        shares["forward_kl_first_token"] = forward_B.sum() / totals.pairs
    return shares


def logprob_drift(batch: MicroBatch, student_BT: Tensor) -> Tensor:
    """Return max |log q by the sampler - log q by the learner| over y_s, nats.

    At policy lag 0 it is the disagreement of two engines on the same weights, and should be
    rounding; at lag k > 0 it also holds k steps of learning.
    """
    behaviour_BT = batch.behaviour_logprobs_KBT[batch.roles.index("student")]
    return (behaviour_BT - student_BT.detach()).abs().max()


def nonfinite_count(batch: MicroBatch, logprobs_KBT: Tensor, loss: Tensor) -> Tensor:
    """Count NaN and infinite values among both models' log-probabilities and the loss."""
    values = (logprobs_KBT.detach(), batch.teacher_logprobs_KBT, loss.detach())
    return torch.stack([(~value.isfinite()).sum() for value in values]).sum()


class ShareSums:
    """Adds up the shares of one rank's micro-batches, keeps maxima; then over ranks."""

    def __init__(self) -> None:
        """Start empty."""
        self.sums: dict[str, Tensor] = {}
        self.maxima: dict[str, Tensor] = {}

    def add(self, shares: Mapping[str, Tensor], *, weight: float) -> None:
        """Add one micro-batch; weight 0 contributes nothing but the names."""
        for name, value in shares.items():
            share = value.detach().double() if weight else value.new_zeros((), dtype=torch.double)
            self.sums[name] = self.sums[name] + share if name in self.sums else share

    def add_maximum(self, name: str, value: Tensor) -> None:
        """Raise a maximum; a stand-in repeats a pair of the batch, so it cannot mislead."""
        value = value.detach().double()
        known = self.maxima.get(name, value)
        self.maxima[name] = torch.maximum(known, value)

    def over_ranks(self, all_reduce: Callable[..., Tensor]) -> dict[str, float]:
        """Reduce over ranks (``Engine.all_reduce``) and read the values out."""
        values = all_reduce(torch.stack(list(self.sums.values()))).tolist()
        result = dict(zip(self.sums, values, strict=True))
        if self.maxima:
            values = all_reduce(torch.stack(list(self.maxima.values())), maximum=True).tolist()
            result |= dict(zip(self.maxima, values, strict=True))
        return result
