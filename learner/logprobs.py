"""Log-probabilities of responses, without ever holding the logits of a whole sequence.

The transformer runs on whole sequences; its output head only on the positions that predict a
response token, ``chunk`` of them at a time, and once more in the backward pass. Peak memory
of the head is therefore chunk x vocabulary, whatever the lengths. torch and transformers only.

Axes: ``R`` sequence, ``L`` position (right-padded), ``N`` response tokens of all sequences,
flattened, ``B`` pair, ``V`` vocabulary, ``D`` hidden.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.errors import ConfigError


class _ChunkedTokenLogprobs(torch.autograd.Function):
    """log softmax(h W^T + b)[target] by chunks of rows; the logits are recomputed backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, *rest: Any
    ) -> Tensor:
        """``rest`` is ``(targets_N, chunk)``. Returns (N,), float32 at least."""
        targets_N, chunk = rest
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N)
        ctx.chunk = chunk
        logprobs = [
            -F.cross_entropy(_logits(hidden, weight_VD, bias_V), targets, reduction="none")
            for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
        ]
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """D log softmax(z)[target] / dz = onehot(target) - softmax(z)."""
        (grad_N,) = grads
        hidden_ND, weight_VD, bias_V, targets_N = ctx.saved_tensors
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=grad_N.dtype)
        grad_bias_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=grad_N.dtype)
        for start in range(0, len(hidden_ND), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            hidden, grad = hidden_ND[rows], grad_N[rows, None]
            grad_logits = _logits(hidden, weight_VD, bias_V).softmax(-1).mul_(-grad)
            grad_logits.scatter_add_(1, targets_N[rows, None], grad)
            if grad_bias_V is not None:
                grad_bias_V += grad_logits.sum(0)
            grad_logits = grad_logits.to(weight_VD.dtype)
            torch.mm(grad_logits, weight_VD, out=grad_hidden_ND[rows])
            grad_weight_VD += grad_logits.T @ hidden
        grad_weight = grad_weight_VD.to(weight_VD.dtype)
        grad_bias = None if grad_bias_V is None else grad_bias_V.to(weight_VD.dtype)
        return grad_hidden_ND, grad_weight, grad_bias, None, None


def _logits(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Return the head's output, raised to float32 where the model computes in less."""
    logits = F.linear(hidden, weight_VD, bias_V)
    return logits if logits.dtype == torch.float64 else logits.float()


class ResponseHead(nn.Module):
    """The model's output head, by reference, giving log-probabilities of given targets.

    A module that holds the very parameter of ``lm_head`` (which may be the embedding's too),
    so that what shards parameters by module, as ZeRO-3 does, gathers it around this call,
    forward and backward.
    """

    def __init__(self, linear: nn.Linear, chunk: int) -> None:
        """Share ``linear``'s parameters; compute ``chunk`` rows of logits at a time."""
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.chunk = chunk

    def forward(
        self, hidden_ND: Tensor, targets_N: Tensor, first_BD: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return (N,) log q(target) with gradient and (B, V) log q(. | first) without."""
        logprobs_N = _ChunkedTokenLogprobs.apply(
            hidden_ND, self.weight, self.bias, targets_N, self.chunk
        )
        if first_BD is None:
            return logprobs_N, None
        with torch.no_grad():
            first_BV = _logits(first_BD, self.weight, self.bias).log_softmax(-1)
        return logprobs_N, first_BV


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
        self, input_ids_RL: Tensor, positions_N: Tensor, first_positions_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Score the tokens that follow ``positions_N``.

        ``input_ids_RL`` is right-padded with any valid id, and needs no attention mask: under
        causal attention no position sees the padding behind it. ``positions_N`` indexes the
        flattened (R * L) positions whose *next* token is a response token;
        ``first_positions_B`` those whose whole next-token distribution is wanted.

        Returns (N,) log q(next token) and, where asked, (B, V) log q(. | ...) without
        gradient, both float32.
        """
        backbone = self.model.base_model
        hidden = backbone(input_ids=input_ids_RL, use_cache=False).last_hidden_state.flatten(0, 1)
        targets_N = input_ids_RL.flatten()[positions_N + 1]
        first_BD = None if first_positions_B is None else hidden.detach()[first_positions_B]
        return self.head(hidden[positions_N], targets_N, first_BD)


@torch.no_grad()
def prove_scorer(scorer: ResponseScorer, *, tolerance: float = 1e-3) -> None:
    """Compare the scorer with the model's own forward on a few tokens.

    Raises ConfigError when they differ: the model does something to its logits (scales or
    caps them) that the chunked head does not know.
    """
    ids_RL = torch.arange(8).remainder(scorer.head.weight.shape[0])[None]
    ids_RL = ids_RL.to(scorer.head.weight.device)
    logits_LV = scorer.model(input_ids=ids_RL, use_cache=False).logits[0, :-1].float()
    expected_N = logits_LV.log_softmax(-1).gather(1, ids_RL[0, 1:, None])[:, 0]
    actual_N, _ = scorer(ids_RL, torch.arange(7, device=ids_RL.device))
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
