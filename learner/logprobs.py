"""Log-probabilities of responses, without ever holding the logits of a whole sequence.

The transformer runs on whole sequences, packed (``learner/packing.py``); its output head only on
the tokens that predict a response token, as many at a time as ``learner/response_head.py`` says.
torch and transformers only. Shape suffixes: see ``learner/batch.py``.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.errors import ConfigError
from learner.packing import Packing, can_pack, pack
from learner.precision import rows_to_add
from learner.response_head import ResponseHead
from learner.segments import Segment


class ResponseScorer(nn.Module):
    """A causal language model that answers with log-probabilities instead of logits."""

    def __init__(self, model: PreTrainedModel, *, logits_at_once: int) -> None:
        """Wrap ``model``, of whose logits at most so many values exist at a time.

        Raises ConfigError when its head is not a linear layer.
        """
        super().__init__()
        linear = model.get_output_embeddings()
        if not isinstance(linear, nn.Linear):
            raise ConfigError(
                f"the output head of {type(model).__name__} is {type(linear).__name__}, not a "
                "linear layer, so its response log-probabilities cannot be computed in chunks; "
                "use a causal language model with a plain lm_head"
            )
        self.model = model
        self.head = ResponseHead(linear, logits_at_once)
        self.packs = can_pack(model)
        """Whether the model computes on packed sequences; else on padded rows."""

    def forward(
        self,
        ids_U: Tensor,
        packing: Packing,
        predicting_N: Tensor,
        targets_N: Tensor,
        *,
        first_B: Tensor | None = None,
        top_ids_MK: Tensor | None = None,
        actions: str | None = None,
        uniform_M: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Score ``targets_N`` after the tokens ``predicting_N``; see ``MicroBatch``.

        ``first_B`` are tokens whose whole next-token distribution is wanted. ``top_ids_MK`` are
        further tokens whose log-probabilities are wanted at the first M states, and ``actions``
        asks for the student's own choice there, drawn by ``uniform_M``.

        Returns the fields of ``StudentScores`` from the first on, as a plain tuple.
        """
        hidden_UD = self._hidden(ids_U, packing)
        first_BD = None if first_B is None else hidden_UD.detach()[first_B]
        return self.head(
            hidden_UD[predicting_N],
            targets_N,
            first_BD,
            top_ids_MK=top_ids_MK,
            actions=actions,
            uniform_M=uniform_M,
        )

    def _hidden(self, ids_U: Tensor, packing: Packing) -> Tensor:
        """Return (U, D), what the head reads; a packed row may have others behind it."""
        backbone = self.model.base_model
        if not self.packs:  # causal attention needs no mask: no token sees the padding behind it
            blocks = (backbone(input_ids=ids, use_cache=False) for ids in packing.spread(ids_U))
            return packing.collect([block.last_hidden_state for block in blocks])
        extra = (0, rows_to_add(len(ids_U), self.head.weight.dtype))
        row = backbone(
            input_ids=F.pad(ids_U, extra)[None],
            position_ids=F.pad(packing.position_U, extra)[None],
            packing=packing._replace(place_U=F.pad(packing.place_U, extra)),
            use_cache=False,
        )
        return row.last_hidden_state[0]


@torch.no_grad()
def prove_scorer(scorer: ResponseScorer, *, tolerance: float = 1e-3) -> None:
    """Compare the scorer with the model's own forward on a few tokens.

    A model that does not attend as a packing tells it computes on padded rows from now on.
    Raises ConfigError when they differ all the same: the model does something to its logits
    (scales or caps them) that the chunked head does not know.
    """
    difference = _difference(scorer)
    if scorer.packs and not difference <= tolerance:
        scorer.packs = False
        difference = _difference(scorer)
    if not difference <= tolerance:
        raise ConfigError(
            f"response log-probabilities of {type(scorer.model).__name__} differ from its own "
            f"forward by {difference:.3g} nats: its head is not a plain linear layer; "
            "use another model family"
        )


def _difference(scorer: ResponseScorer) -> float:
    """Return the largest, nats, over two responses of different lengths to one prompt."""
    ids = np.arange(11).astype(np.int32) % scorer.head.vocabulary
    pair = [Segment(ids[:3], ids[3:8]), Segment(ids[:3], ids[8:])]
    packing, ids_U, predicting_N = pack([pair], share_contexts=True)
    device = scorer.head.weight.device
    targets_N = torch.from_numpy(np.concatenate([s.target_ids_T for s in pair]).astype(np.int64))
    actual_N = scorer(
        ids_U.to(device), packing.to(device), predicting_N.to(device), targets_N.to(device)
    )[0]
    expected = []
    for each in pair:
        whole_L = torch.from_numpy(np.concatenate(each[:2]).astype(np.int64)).to(device)
        logits_LV = scorer.model(input_ids=whole_L[None], use_cache=False).logits[0].float()
        logprobs_LV = logits_LV.log_softmax(-1)[len(each.context_ids) - 1 : -1]
        expected.append(logprobs_LV.gather(1, whole_L[len(each.context_ids) :, None])[:, 0])
    return (actual_N - torch.cat(expected)).abs().max().item()


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
