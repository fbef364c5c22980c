"""log p(y | x) of given responses, and p's likeliest tokens at each of their states.

The torch scorer is the default: it was measured at 2.7 times the speed of vLLM's request by
request ``prompt_logprobs`` on the same model and cores, and it hands over log p(. | x) of the
first token at the price of one more row of the output head. ``engine_scoring`` asks a vLLM
engine, or a server.

A response is short beside its prompt and a vocabulary is wide, so the logits of whole
sequences are never made: the transformer body runs on the padded batch, and the output head
only on the hidden states that predict a response token, ``LOGITS_AT_ONCE`` values at a time.
"""

import sys
from collections.abc import Iterator, Sequence
from pickle import PickleError
from struct import error as BadStruct
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.activations import ACT2FN, GELUTanh

from actors.limits import Limits, Owner
from actors.model_folder import UNREADABLE
from configs.errors import ConfigError, DependencyError
from configs.models import DType

LOGITS_AT_ONCE = 1 << 24
"""Logits that exist at one time, in values: 64 MiB in float32."""
PADDING = 128
"""Most tokens of padding in one forward."""
_EVEN = 8
"""In less than float32 most forwards have a multiple of so many rows, and of columns, too: a
CPU's library compiles code for every shape that it meets."""
_EVEN_HEAD_ROWS = 64
"""The same for the output head."""
_OTHERWISE = {"teacher": "set teacher.scorer=vllm", "student": "take a student of another family"}


class Score(NamedTuple):
    """What a scorer says of one response."""

    logprobs_T: np.ndarray
    """(T,) float32, log p(y_i | x, y_<i)."""
    first_token_logprobs_V: np.ndarray | None = None
    """(V,) float32, log p(. | x); None: not asked."""
    top_ids_TK: np.ndarray | None = None
    """(T, K) int32, the likeliest tokens at each state, likeliest first; None: not asked."""
    top_logprobs_TK: np.ndarray | None = None
    """(T, K) float32, their log-probabilities."""


class Scorer(Protocol):
    """The one verb that every engine of log p(y | x) has."""

    def score(
        self,
        prompts: Sequence[np.ndarray],
        responses: Sequence[np.ndarray],
        *,
        first_token: bool = False,
        top_k: int | None = None,
    ) -> list[Score]:
        """Score (P,) and (T,) int32 ids, pairwise; the answers are in the order given.

        ``top_k`` asks for the K likeliest tokens at each state.
        """
        ...


class TorchScorer:
    """Scores with a transformers model: length-sorted batches, right padding, fp32 softmax."""

    def __init__(
        self,
        model: str,
        *,
        dtype: DType = "float32",
        trust_remote_code: bool = False,
        revision: str | None = None,
        batch_tokens: int = 8192,
        owner: Owner = "teacher",
    ) -> None:
        """Load ``model`` (a folder or hub name) for inference, on a GPU where there is one.

        ``batch_tokens`` bounds the padded tokens of one forward; a longer single sequence
        goes alone. ``owner`` is the section of the recipe that errors point to. Raises
        DependencyError when the model cannot be loaded whole, and ConfigError when its logits
        are more than an output head on hidden states.
        """
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._owner = owner
        self._model = _load(model, dtype, trust_remote_code, revision, owner)
        self._body = cast(nn.Module, self._model.base_model)
        self._head = cast(nn.Linear, self._model.get_output_embeddings())
        cast(nn.Module, self._model).to(self._device).eval()
        self._batch_tokens = batch_tokens
        self._exact = dtype == "float32"
        text = self._model.config.get_text_config()
        self._context = getattr(text, "max_position_embeddings", None) or sys.maxsize
        self._check_head(model)

    def score(
        self,
        prompts: Sequence[np.ndarray],
        responses: Sequence[np.ndarray],
        *,
        first_token: bool = False,
        top_k: int | None = None,
    ) -> list[Score]:
        """Return one Score a pair, in the order given; see ``Scorer.score``.

        One forward gives everything. K is at most the vocabulary. A batch's make-up can move a
        value in its last bits (about 1e-6 nats), as it does in any batched forward; the same
        call always gives the same bits.
        """
        pairs = list(zip(prompts, responses, strict=True))
        scores: dict[int, Score] = {}
        lengths = [self._width(len(prompt) + len(response) - 1) for prompt, response in pairs]
        rows = 1 if self._exact else _EVEN
        for batch in token_batches(lengths, self._batch_tokens, multiple=rows):
            chosen = [pairs[index] for index in batch]
            batch_scores = self._score_batch(chosen, first_token, top_k)
            scores.update(zip(batch, batch_scores, strict=True))
        return [scores[index] for index in range(len(pairs))]

    @torch.inference_mode()
    def _score_batch(
        self, pairs: list[tuple[np.ndarray, np.ndarray]], first_token: bool, top_k: int | None
    ) -> list[Score]:
        hidden_BLH = self._hidden_states(pairs)
        # The hidden state at position i predicts token i + 1, so the response's T tokens are
        # predicted from positions P-1 .. P+T-2; N counts them over the whole batch.
        row_N = np.concatenate([np.full(len(y), row) for row, (_, y) in enumerate(pairs)])
        column_N = np.concatenate([len(x) - 1 + np.arange(len(y)) for x, y in pairs])
        hidden_NH = hidden_BLH[self._tensor(row_N), self._tensor(column_N)]
        del hidden_BLH
        targets_N = self._tensor(np.concatenate([y for _, y in pairs]))
        ends = np.cumsum([len(y) for _, y in pairs])
        starts = ends - [len(y) for _, y in pairs]
        firsts = (
            self._first_token_logprobs(hidden_NH[self._tensor(starts)])
            if first_token
            else [None] * len(pairs)
        )
        known = self._read(hidden_NH, targets_N, top_k)
        # One copy a response: a view would keep the batch alive for as long as one tuple lives.
        parts = [[array[s:e].copy() for array in known] for s, e in zip(starts, ends, strict=True)]
        return [
            Score(logprobs_T, first_V, *top)
            for (logprobs_T, *top), first_V in zip(parts, firsts, strict=True)
        ]

    def _read(
        self, hidden_NH: torch.Tensor, targets_N: torch.Tensor, top_k: int | None
    ) -> list[np.ndarray]:
        """Return log p of the targets, (N,), and with ``top_k`` ids and their log p, (N, K)."""
        chunks: list[list[np.ndarray]] = []
        for start, logprobs_CV in self._head_logprobs(hidden_NH):
            targets_C1 = targets_N[start : start + len(logprobs_CV), None]
            found = [logprobs_CV.gather(1, targets_C1)[:, 0]]
            if top_k is not None:
                top_CK, ids_CK = logprobs_CV.topk(min(top_k, logprobs_CV.shape[1]), dim=1)
                found += [ids_CK.int(), top_CK]
            chunks.append([values.cpu().numpy() for values in found])
        return [np.concatenate(columns) for columns in zip(*chunks, strict=True)]

    def _hidden_states(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> torch.Tensor:
        """Run the body on right-padded sequences, the last token of each left out: (B, L, H)."""
        sequences = [np.concatenate([x, y[:-1]]) for x, y in pairs]
        ids_BL = np.zeros((len(pairs), self._width(max(map(len, sequences)))), np.int64)
        for row, sequence in enumerate(sequences):
            ids_BL[row, : len(sequence)] = sequence
        # No mask: under causal attention no token sees the padding behind it, and without one
        # attention takes its fastest way.
        return self._body(input_ids=self._tensor(ids_BL), use_cache=False).last_hidden_state

    def _width(self, tokens: int) -> int:
        """Return how many columns so many tokens get."""
        even = tokens if self._exact else -(-tokens // _EVEN) * _EVEN
        return even if even <= self._context else tokens

    def _head_logprobs(self, hidden_NH: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (start, float32 log-softmax (C, V)) for chunks of rows of ``hidden_NH``."""
        rows = max(1, LOGITS_AT_ONCE // self._head.weight.shape[0])
        for start in range(0, len(hidden_NH), rows):
            hidden_CH = hidden_NH[start : start + rows]
            extra = 0 if self._exact else -len(hidden_CH) % _EVEN_HEAD_ROWS
            logits_CV = self._head(functional.pad(hidden_CH, (0, 0, 0, extra)))[: len(hidden_CH)]
            yield start, torch.log_softmax(logits_CV.float(), dim=-1)

    def _first_token_logprobs(self, hidden_BH: torch.Tensor) -> list[np.ndarray]:
        chunks = [chunk.cpu().numpy() for _, chunk in self._head_logprobs(hidden_BH)]
        return [row.copy() for chunk in chunks for row in chunk]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.int64)).to(self._device)

    @torch.inference_mode()
    def _check_head(self, name: str) -> None:
        """Refuse architectures that scale or cap their logits after the output head."""
        ids_BL = self._tensor(np.arange(min(8, self._head.weight.shape[0]))[None])
        through_head = self._head(self._body(input_ids=ids_BL, use_cache=False).last_hidden_state)
        whole = self._model(input_ids=ids_BL, use_cache=False).logits
        # Equal NaNs are a sound head on broken weights, of which warm-up says more.
        same = torch.allclose(
            through_head.float(), whole.float(), rtol=1e-2, atol=1e-4, equal_nan=True
        )
        if not same:
            raise ConfigError(
                f"{self._owner} {name} ({type(self._model).__name__}) changes its logits after the "
                f"output head, which the torch scorer does not follow; {_OTHERWISE[self._owner]}"
            )


def token_batches(lengths: Sequence[int], budget: int, *, multiple: int = 1) -> list[list[int]]:
    """Cut indices into batches of similar length, longest first.

    A batch's padded size, its count times its longest length, stays within ``budget`` tokens,
    unless one sequence alone is longer; and its padding within ``PADDING``, which is about what
    another forward would cost, unless it takes more to make it a ``multiple``.

    >>> token_batches([3, 9, 4, 8], 18)
    [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    longest = padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        padding += longest - lengths[index]
        last = batches[-1] if batches else []
        fits = last and (len(last) + 1) * longest <= budget
        if fits and (padding <= PADDING or len(last) % multiple):
            last.append(index)
        else:
            batches.append([index])
            longest, padding = lengths[index], 0
    return batches


def gives_finite(scorer: Scorer, limits: Limits) -> bool:
    """Return whether a few tokens get log-probabilities that are numbers."""
    ids = np.arange(min(8, limits.vocab_size or 8, limits.context), dtype=np.int32)
    (score,) = scorer.score([ids[:1]], [ids[1:]])
    return bool(np.isfinite(score.logprobs_T).all())


def _load(
    name: str, dtype: DType, trust_remote_code: bool, revision: str | None, owner: Owner
) -> PreTrainedModel:
    """Load a causal language model, or raise DependencyError if a single weight is missing."""
    advice = f"set {owner}.model to a complete model in Hugging Face layout"
    ACT2FN.update(gelu_new=GELUTanh)  # the same function, in one pass over memory and not in eight
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            revision=revision,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, in one sentence
        )
    except (*UNREADABLE, SafetensorError, RuntimeError, EOFError, PickleError, BadStruct) as error:
        reason = " ".join(str(error).split())
        raise DependencyError(f"model {name} cannot be loaded: {reason}; {advice}") from error
    model, report = cast(tuple[PreTrainedModel, dict], loaded)
    if report["missing_keys"]:
        # transformers would fill them with random numbers and go on.
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise DependencyError(f"model {name} lacks weights ({missing}, …); {advice}")
    if report["mismatched_keys"]:
        tensor, stored, declared = min(report["mismatched_keys"])
        raise DependencyError(
            f"model {name} holds {tensor} with shape {tuple(stored)}, and its config.json makes it "
            f"{tuple(declared)}; {advice}"
        )
    return model
