"""One learning step: the page everyone reads.

    tuples (x, y_t, y_s, log p) ──► micro-batches ──► log q ──► objective ──► backward
                                                        │                       │
                                                        └──► statistics     gradients, for
                                                                            ``optim_step``

Shape suffixes: see ``learner/batch.py``.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from configs.objective import DpkdConfig, ObjectiveConfig
from configs.wire import PreferenceTuple, Prompt
from learner.batch import MicroBatch, micro_batches, roles_of
from learner.objectives.dpkd import dpkd
from learner.objectives.sequences import SequenceScores
from learner.objectives.sft import mean_nll
from learner.statistics import (
    BatchTotals,
    ShareSums,
    logprob_drift,
    nonfinite_count,
    policy_shares,
)


class Engine(Protocol):
    """What a step asks of whatever holds the model: DeepSpeed, or plain torch in a test."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def step(self) -> int:
        """Optimizer steps made so far: the version of the weights."""
        ...

    def score(self, batch: MicroBatch) -> tuple[Tensor, Tensor | None]:
        """Return (N,) log q of the response tokens and, where asked, (B, V) log q(. | x)."""
        ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of this rank's share of the loss; ``last`` before the step."""
        ...

    def all_reduce(self, values: Tensor, *, maximum: bool = False) -> Tensor:
        """Sum (or take the maximum of) a vector over ranks."""
        ...


def forward_backward(
    engine: Engine,
    tuples: Sequence[PreferenceTuple],
    objective: ObjectiveConfig,
    *,
    token_budget: int,
) -> dict[str, float]:
    """Accumulate the gradient of the objective over a batch and return its statistics.

    Every rank is given the *whole* batch and takes its share of it. Counts are taken over the
    whole batch before the first forward, so neither loss nor statistics depend on how the
    batch is cut into micro-batches of ``token_budget`` padded tokens, or dealt to ranks.
    """
    roles = roles_of(objective)
    totals = BatchTotals.of(tuples, roles)
    batches = micro_batches(
        tuples, roles, rank=engine.rank, ranks=engine.world_size, token_budget=token_budget
    )
    sums = ShareSums()
    for number, batch in enumerate((b.to(engine.device) for b in batches), start=1):
        logprobs_N, first_BV = engine.score(batch)
        logprobs_KBT = batch.unflatten(logprobs_N)
        loss, shares = evaluate(objective, batch, logprobs_KBT, pair_count=totals.pairs)
        engine.backward(loss * batch.weight, last=number == len(batches))

        shares |= {"loss": loss, "nonfinite": nonfinite_count(batch, logprobs_KBT, loss)}
        if "student" in roles:
            student_BT = logprobs_KBT[roles.index("student")]
            shares |= policy_shares(batch, student_BT, first_BV, totals)
            sums.add_maximum("logprob_drift", logprob_drift(batch, student_BT))
        sums.add(shares, weight=batch.weight)
    return totals.statistics(tuples, engine.step) | sums.over_ranks(engine.all_reduce)


def evaluate(
    objective: ObjectiveConfig, batch: MicroBatch, logprobs_KBT: Tensor, *, pair_count: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this micro-batch's share of the loss, and of the objective's own statistics.

    ``logprobs_KBT`` is log q of every response token, with gradient, 0 at padding.
    """
    side = {
        role: SequenceScores.of(logprobs_BT, teacher_BT, length_B)
        for role, logprobs_BT, teacher_BT, length_B in zip(
            batch.roles, logprobs_KBT, batch.teacher_logprobs_KBT, batch.lengths_KB, strict=True
        )
    }
    if isinstance(objective, DpkdConfig):
        loss, shares = dpkd(
            side["teacher"],
            side["student"],
            beta=objective.beta,
            length_normalised=objective.length_normalised,
            pair_count=pair_count,
        )
        shares["loss_preference"] = loss
    else:
        gold = side["gold"]
        loss = mean_nll(gold.student_B, gold.length_B, sequence_count=pair_count)
        shares = {"loss_sft": loss}
    if "document" in side:
        document = side["document"]
        loss_lm = mean_nll(document.student_B, document.length_B, sequence_count=pair_count)
        loss = loss + objective.lm_weight * loss_lm
        shares["loss_lm"] = loss_lm
    return loss, shares


@torch.no_grad()
def gold_nll(engine: Engine, prompts: Sequence[Prompt], *, token_budget: int) -> dict[str, float]:
    """Return the negative log-likelihood of the gold responses, nats per token, and the tokens.

    Every token weighs the same here, as in perplexity.
    """
    tuples = [PreferenceTuple(prompt=prompt) for prompt in prompts]
    totals = BatchTotals.of(tuples, ("gold",))
    sums = ShareSums()
    for batch in micro_batches(
        tuples, ("gold",), rank=engine.rank, ranks=engine.world_size, token_budget=token_budget
    ):
        logprobs_N, _ = engine.score(batch.to(engine.device))
        share = -logprobs_N.double().sum() / totals.tokens["gold"]
        sums.add({"nll": share}, weight=batch.weight)
    return {"tokens": float(totals.tokens["gold"])} | sums.over_ranks(engine.all_reduce)
