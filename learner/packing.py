"""Sequences packed into one row that holds every token once: no padding, no prompt twice.

    x y_t | x y_s | x' y_t' ...   R sequences, of which those of a tuple share a context
    x x' ... y_t y_s y_t' ...     U tokens: what embeddings, layers and head compute on
    x y_t 0 0 / x y_s 0 0 / ...   R rows of L: what attention alone computes on, causal

Each token keeps the position that it has in its sequence, and attention sees each sequence by
itself, so nothing changes but the order of sums. torch and transformers only. Shape suffixes: see
``learner/batch.py``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from learner.segments import Segment

_NAME = "dpkd_packed"


class Packing(NamedTuple):
    """Where the tokens of R sequences are among U."""

    token_RL: Tensor
    """(R, L) int64 into U; padding names any token: it comes behind, where causal attention does
    not look."""
    place_U: Tensor
    """(U,) int64 into the flattened (R * L): one place at which each token is."""
    position_U: Tensor
    """(U,) int64, each token's position in its sequences."""

    def to(self, device: torch.device) -> "Packing":
        """Return the same on ``device``."""
        return Packing(*(tensor.to(device, non_blocking=True) for tensor in self))

    def spread(self, values_U: Tensor) -> Tensor:
        """Return (R, L, ...) of (U, ...), any value at padding."""
        return values_U.index_select(0, self.token_RL.flatten()).unflatten(0, self.token_RL.shape)

    def collect(self, values_RL: Tensor) -> Tensor:
        """Return (U, ...) of (R, L, ...), each token's from one of its places."""
        return values_RL.flatten(0, 1).index_select(0, self.place_U)


def pack(
    segments: Sequence[Sequence[Segment]], *, share_contexts: bool
) -> tuple[Packing, Tensor, Tensor]:
    """Pack ``segments[tuple][side]``; sequence r = side * tuples + tuple.

    Returns the packing, the tokens (U,) and, for every target of the sequences in turn, (N,) the
    token that predicts it. A sequence's last target predicts nothing and is left out.
    """
    sides, tuples = len(segments[0]), len(segments)
    rows = [row[side] for side in range(sides) for row in segments]
    lengths = [len(s.context_ids) + len(s.target_ids_T) - 1 for s in rows]
    token_RL = np.zeros((len(rows), max(lengths)), np.int64)
    packed = _Row(width=token_RL.shape[1])
    for index, row in enumerate(segments):
        known: list[tuple[np.ndarray, np.ndarray]] = []
        for side, segment in enumerate(row):
            r, context, end = side * tuples + index, segment.context_ids, len(segment.context_ids)
            tokens = _find(context, known) if share_contexts else None
            if tokens is None:
                tokens = packed.add(context, sequence=r, start=0)
                known.append((context, tokens))
            token_RL[r, :end] = tokens
            token_RL[r, end : lengths[r]] = packed.add(
                segment.target_ids_T[:-1], sequence=r, start=end
            )
    predicting = [token_RL[r, len(s.context_ids) - 1 : lengths[r]] for r, s in enumerate(rows)]
    packing = Packing(
        token_RL=torch.from_numpy(token_RL),
        place_U=torch.from_numpy(np.concatenate(packed.places)),
        position_U=torch.from_numpy(np.concatenate(packed.positions)),
    )
    ids_U = torch.from_numpy(np.concatenate(packed.ids).astype(np.int64))
    return packing, ids_U, torch.from_numpy(np.concatenate(predicting))


class _Row:
    """The packed row as it grows."""

    def __init__(self, *, width: int) -> None:
        self._width = width
        self._count = 0
        self.ids: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []

    def add(self, ids: np.ndarray, *, sequence: int, start: int) -> np.ndarray:
        """Append what a sequence has from ``start`` on; returns the tokens' numbers in the row."""
        position = np.arange(start, start + len(ids))
        self.ids.append(ids)
        self.places.append(sequence * self._width + position)
        self.positions.append(position)
        self._count += len(ids)
        return np.arange(self._count - len(ids), self._count)


def _find(context: np.ndarray, known: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
    """Return the tokens of an equal context, if there is one."""
    same = (tokens for other, tokens in known if np.array_equal(other, context))
    return next(same, None)


def can_pack(model: PreTrainedModel) -> bool:
    """Have ``model`` attend as a packing tells it, if it attends by torch's own function.

    Without a packing it then attends as before. One with layers that do not look back on
    everything is refused: their own masks are needed.
    """
    config = model.config.get_text_config()
    kinds = {*(getattr(config, "layer_types", None) or ()), "full_attention"}
    whole = kinds == {"full_attention"} and not getattr(config, "sliding_window", None)
    if config._attn_implementation not in ("sdpa", _NAME) or not whole:
        return False
    AttentionInterface.register(_NAME, _attend)
    config._attn_implementation = _NAME
    return True


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence: (1, heads, U, d) to (1, U, heads, d)."""
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    query, key, value = (
        packing.spread(each[0].transpose(0, 1)).transpose(1, 2) for each in (query, key, value)
    )
    attended, _ = sdpa_attention_forward(module, query, key, value, None, **options)
    return packing.collect(attended)[None], None
