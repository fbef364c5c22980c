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
from learner.objectives.divergences import first_token_kl, reverse_kl_k1, reverse_kl_k3
from learner.scored import Scored
from learner.segments import Asked, Role, Segment, segment


class BatchTotals(NamedTuple):
    """Counts over the whole batch, all ranks: the denominators, known before any forward."""

    pairs: int
    """Tuples, be they pairs or single sequences."""
    tokens: dict[Role, int]
    """Response tokens by role."""
    student_drawn: int
    """Sequences that the student drew."""
    student_tokens: int
    """Their tokens."""
    scored: bool
    """Whether there are such, and the teacher's log-probabilities of all of them."""

    @classmethod
    def of(cls, tuples: Sequence[PreferenceTuple], asked: Asked) -> Self:
        """Count; every rank holds the whole batch, so no message is needed.

        Raises DataError where something that is asked is missing.
        """
        rows: dict[Role, list[Segment]] = {
            role: [segment(item, role, asked.needs) for item in tuples] for role in asked.roles
        }
        drawn = [s for row in rows.values() for s in row if s.student_drawn]
        scored = [s.known is not None and s.known.teacher_logprobs_T is not None for s in drawn]
        return cls(
            pairs=len(tuples),
            tokens={role: sum(len(s.target_ids_T) for s in row) for role, row in rows.items()},
            student_drawn=len(drawn),
            student_tokens=sum(len(s.target_ids_T) for s in drawn),
            scored=bool(scored) and all(scored),
        )

    def statistics(self, tuples: Sequence[PreferenceTuple], step: int) -> dict[str, float]:
        """Return the statistics that need no model: counts, mean lengths, policy lag."""
        values: dict[str, float] = {"pairs": self.pairs, "tokens": sum(self.tokens.values())}
        for role in ("teacher", "student"):
            known = [getattr(item, f"{role}_response") for item in tuples]
            lengths = [len(response.ids_T) for response in known if response is not None]
            if lengths:
                values[f"response_length_{role}"] = sum(lengths) / len(lengths)
        lags = [step - t.weight_version for t in tuples if t.weight_version is not None]
        if lags:
            values |= {"policy_lag_mean": sum(lags) / len(lags), "policy_lag_max": max(lags)}
        return values


def policy_shares(scored: Scored, totals: BatchTotals) -> dict[str, Tensor]:
    """Return how far q is from p on y_s, as shares of means over the whole batch's y_s.

    Nothing of what is not known: where the student drew no sequence of the batch, or the teacher
    did not score them, or did not give the first token's distribution.
    """
    batch, shares = scored.batch, {}
    if totals.scored:
        models = scored.logprobs_SBT, batch.teacher_logprobs_SBT
        k1, k3 = (
            torch.where(batch.student_drawn_SB, estimate(*models), 0.0).sum()
            for estimate in (reverse_kl_k1, reverse_kl_k3)
        )
        shares = {
            "reverse_kl_k1": k1 / totals.student_drawn,
            "reverse_kl_k3": k3 / totals.student_drawn,
            "reverse_kl_per_token": k1 / totals.student_tokens,
        }
    first_BV = scored.scores.first_BV
    if first_BV is not None and batch.teacher_first_BV is not None:
        reverse_B, forward_B = first_token_kl(first_BV, batch.teacher_first_BV)
        shares["reverse_kl_first_token"] = reverse_B.sum() / totals.pairs
        shares["forward_kl_first_token"] = forward_B.sum() / totals.pairs
    return shares


def logprob_drift(scored: Scored) -> Tensor:
    """Return max |log q by the sampler - log q by the learner| over y_s, nats.

    At policy lag 0 it is the disagreement of two engines on the same weights, and should be
    rounding; at lag k > 0 it also holds k steps of learning. 0 where the micro-batch has no y_s.
    """
    drift_SBT = (scored.batch.behaviour_logprobs_SBT - scored.logprobs_SBT.detach()).abs()
    return torch.where(scored.batch.student_drawn_SB[..., None], drift_SBT, 0.0).max()


def nonfinite_count(scored: Scored, loss: Tensor) -> Tensor:
    """Count NaN and infinite values among the models' log-probabilities and the loss.

    Among the teacher's likeliest tokens minus infinity is a probability of 0, and sound.
    """
    batch = scored.batch
    values = (
        scored.logprobs_SBT.detach(),
        batch.teacher_logprobs_SBT,
        batch.reference_logprobs_SBT,
        loss.detach(),
    )
    counts = [(~value.isfinite()).sum() for value in values]
    if batch.top_logprobs_MK is not None:
        counts.append((~(batch.top_logprobs_MK < torch.inf)).sum())
    return torch.stack(counts).sum()


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
