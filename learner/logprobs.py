"""Log-probabilities of responses, without ever holding the logits of a whole sequence.

The transformer runs on whole sequences; its output head only on the positions that predict a
response token, a chunk of them at a time (``learner/response_head.py``). torch and transformers
only. Shape suffixes: see ``learner/batch.py``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.errors import ConfigError
from learner.response_head import ResponseHead


class ResponseScorer(nn.Module):
    """A causal language model that answers with log-probabilities instead of logits."""

    def __init__(self, model: PreTrainedModel, *, chunk_tokens: int) -> None:
        """Wrap ``model``. Raises ConfigError when its head is not a linear layer."""
        super().__init__()
        linear = model.get_output_embeddings()
        if not isinstance(linear, nn.Linear):
            raise ConfigError(
                f"the output head of {type(model).__name__} is {type(linear).__name__}, not a "
                "linear layer, so its response log-probabilities cannot be computed in chunks; "
                "use a causal language model with a plain lm_head"
            )
        self.model = model
        self.head = ResponseHead(linear, chunk_tokens)

    def forward(
        self,
        input_ids_RL: Tensor,
        positions_N: Tensor,
        *,
        first_positions_B: Tensor | None = None,
        top_ids_MK: Tensor | None = None,
        actions: str | None = None,
        uniform_M: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Score the tokens that follow ``positions_N``; the arguments are ``MicroBatch.inputs``.

        ``input_ids_RL`` is right-padded with any valid id, and needs no attention mask: under
        causal attention no position sees the padding behind it. ``positions_N`` indexes the
        flattened (R * L) positions whose *next* token is a response token;
        ``first_positions_B`` those whose whole next-token distribution is wanted. ``top_ids_MK``
        are further tokens whose log-probabilities are wanted after the first M positions, and
        ``actions`` asks for the student's own choice there, drawn by ``uniform_M``.

        Returns the fields of ``StudentScores`` from the first on, as a plain tuple.
        """
        backbone = self.model.base_model
        hidden = backbone(input_ids=input_ids_RL, use_cache=False).last_hidden_state.flatten(0, 1)
        targets_N = input_ids_RL.flatten()[positions_N + 1]
        first_BD = None if first_positions_B is None else hidden.detach()[first_positions_B]
        return self.head(
            hidden[positions_N],
            targets_N,
            first_BD,
            top_ids_MK=top_ids_MK,
            actions=actions,
            uniform_M=uniform_M,
        )


@torch.no_grad()
def prove_scorer(scorer: ResponseScorer, *, tolerance: float = 1e-3) -> None:
    """Compare the scorer with the model's own forward on a few tokens.

    Raises ConfigError when they differ: the model does something to its logits (scales or
    caps them) that the chunked head does not know.
    """
    ids_RL = torch.arange(8).remainder(scorer.head.vocabulary)[None]
    ids_RL = ids_RL.to(scorer.head.weight.device)
    logits_LV = scorer.model(input_ids=ids_RL, use_cache=False).logits[0, :-1].float()
    expected_N = logits_LV.log_softmax(-1).gather(1, ids_RL[0, 1:, None])[:, 0]
    actual_N = scorer(ids_RL, torch.arange(7, device=ids_RL.device))[0]
    difference = (actual_N - expected_N).abs().max().item()
    if not difference <= tolerance:
        raise ConfigError(
            f"response log-probabilities of {type(scorer.model).__name__} differ from its own "
            f"forward by {difference:.3g} nats: its head is not a plain linear layer; "
            "use another model family"
        )


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout rate in ``model`` to 0, whatever mode it is in.

    Log-probabilities must not wander between two looks at one token, and
    activation checkpointing needs training mode, in which dropout would be on.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or name == "layerdrop"):
                setattr(module, name, 0.0)
