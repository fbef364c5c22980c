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

from configs.objective import ObjectiveConfig
from configs.wire import PreferenceTuple, Prompt
from learner.batch import MicroBatch
from learner.cut import micro_batches
from learner.losses import objective_loss
from learner.objectives.sft import mean_nll
from learner.response_head import StudentScores
from learner.scored import Scored
from learner.segments import Asked
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

    def score(self, batch: MicroBatch) -> StudentScores:
        """Return log q of the response tokens and of whatever else the batch asks."""
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
    share_prompts: bool = True,
) -> dict[str, float]:
    """Accumulate the gradient of the objective over a batch and return its statistics.

    Every rank is given the *whole* batch and takes its share of it. Counts are taken over the
    whole batch before the first forward, so neither loss nor statistics depend on how the
    batch is cut into micro-batches of ``token_budget`` padded tokens, or dealt to ranks; nor,
    but for rounding, on whether a tuple's sequences hold their prompt in common.
    """
    asked = Asked.of(objective)
    totals = BatchTotals.of(tuples, asked)
    batches = micro_batches(
        tuples,
        asked,
        rank=engine.rank,
        ranks=engine.world_size,
        token_budget=token_budget,
        share_prompts=share_prompts,
    )
    sums = ShareSums()
    for number, batch in enumerate((b.to(engine.device) for b in batches), start=1):
        scored = Scored.of(batch, engine.score(batch), pair_count=totals.pairs)
        loss, shares = evaluate(objective, scored)
        engine.backward(loss * batch.weight, last=number == len(batches))

        shares |= {"loss": loss, "nonfinite": nonfinite_count(scored, loss)}
        sums.add(shares | policy_shares(scored, totals), weight=batch.weight)
        if totals.student_drawn:
            sums.add_maximum("logprob_drift", logprob_drift(scored))
    return totals.statistics(tuples, engine.step) | sums.over_ranks(engine.all_reduce)


def evaluate(objective: ObjectiveConfig, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this micro-batch's share of the loss, and of the objective's own statistics.

    The objective's own function is found in ``learner/losses.py``; the language-model term
    joins any of them.
    """
    loss, shares = objective_loss(objective, scored)
    if "document" in scored.batch.asked.roles:
        document = scored.side("document")
        loss_lm = mean_nll(document.student_B, document.length_B, sequence_count=scored.pair_count)
        loss = loss + objective.lm_weight * loss_lm
        shares["loss_lm"] = loss_lm
    return loss, shares


@torch.no_grad()
def gold_nll(engine: Engine, prompts: Sequence[Prompt], *, token_budget: int) -> dict[str, float]:
    """Return the negative log-likelihood of the gold responses, nats per token, and the tokens.

    Every token weighs the same here, as in perplexity.
    """
    tuples = [PreferenceTuple(prompt=prompt) for prompt in prompts]
    asked = Asked(("gold",))
    totals = BatchTotals.of(tuples, asked)
    sums = ShareSums()
    for batch in micro_batches(
        tuples, asked, rank=engine.rank, ranks=engine.world_size, token_budget=token_budget
    ):
        logprobs_N = engine.score(batch.to(engine.device)).logprobs_N
        share = -logprobs_N.double().sum() / totals.tokens["gold"]
        sums.add({"nll": share}, weight=batch.weight)
    return {"tokens": float(totals.tokens["gold"])} | sums.over_ranks(engine.all_reduce)
