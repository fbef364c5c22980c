"""Sequences packed into one row that holds every token once: no padding, no prompt twice.

    x y_t | x y_s | x' y_t' ...   R sequences, of which those of a tuple share a context
    x x' ... y_t y_s y_t' ...     U tokens: what embeddings, layers and head compute on
    x y_t 0 0 / x y_s 0 0 / ...   R rows in blocks: what attention alone computes on, causal

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

from learner.precision import exactly
from learner.segments import Segment

_NAME = "dpkd_packed"
LEAST_ROWS = 8
"""Of a block that another one follows: a call to attend has a price of its own."""
LEAST_FILLED = 0.8
"""Share of a block's width that its rows fill, where there are enough of them."""


class Packing(NamedTuple):
    """Where the tokens of R sequences are among U.

    Attention alone computes on padded rows: on blocks of them, each as wide as its longest, so that
    a few long sequences do not make rows of all others. F places are in all blocks together.
    """

    token_F: Tensor
    """(F,) int64 into U; padding names any token: it comes behind, where causal attention does
    not look."""
    place_U: Tensor
    """(U,) int64 into F: one place at which each token is."""
    position_U: Tensor
    """(U,) int64, each token's position in its sequences."""
    blocks: tuple[tuple[int, int], ...]
    """Rows and width of each block; their products add up to F."""

    def to(self, device: torch.device) -> "Packing":
        """Return the same on ``device``."""
        token_F, place_U, position_U = (
            each.to(device, non_blocking=True)
            for each in (self.token_F, self.place_U, self.position_U)
        )
        return Packing(token_F, place_U, position_U, self.blocks)

    def spread(self, values_U: Tensor) -> list[Tensor]:
        """Return a (rows, width, ...) for each block of (U, ...), any value at padding."""
        values_F = values_U.index_select(0, self.token_F)
        parts = values_F.split([rows * width for rows, width in self.blocks])
        return [part.unflatten(0, block) for part, block in zip(parts, self.blocks, strict=True)]

    def collect(self, values: Sequence[Tensor]) -> Tensor:
        """Return (U, ...) of what ``spread`` gives, each token's from one of its places."""
        return torch.cat([each.flatten(0, 1) for each in values]).index_select(0, self.place_U)


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
    blocks, start_R = _blocks(lengths)
    token_F = np.zeros(sum(count * width for count, width in blocks), np.int64)
    packed = _Row()
    for index, row in enumerate(segments):
        known: list[tuple[np.ndarray, np.ndarray]] = []
        for side, segment in enumerate(row):
            r, context, end = side * tuples + index, segment.context_ids, len(segment.context_ids)
            row_L = token_F[start_R[r] : start_R[r] + lengths[r]]
            tokens = _find(context, known) if share_contexts else None
            if tokens is None:
                tokens = packed.add(context, place=start_R[r], position=0)
                known.append((context, tokens))
            row_L[:end] = tokens
            row_L[end:] = packed.add(
                segment.target_ids_T[:-1], place=start_R[r] + end, position=end
            )
    predicting = [
        token_F[start_R[r] + len(s.context_ids) - 1 : start_R[r] + lengths[r]]
        for r, s in enumerate(rows)
    ]
    packing = Packing(
        token_F=torch.from_numpy(token_F),
        place_U=torch.from_numpy(np.concatenate(packed.places)),
        position_U=torch.from_numpy(np.concatenate(packed.positions)),
        blocks=blocks,
    )
    ids_U = torch.from_numpy(np.concatenate(packed.ids).astype(np.int64))
    return packing, ids_U, torch.from_numpy(np.concatenate(predicting))


def _blocks(lengths: Sequence[int]) -> tuple[tuple[tuple[int, int], ...], list[int]]:
    """Lay rows out in blocks of similar width, the longest first.

    Returns (rows, width) of each block and the place at which each row starts.

    >>> _blocks([3, 9, 4, 10])
    (((4, 10),), [30, 10, 20, 0])
    """
    blocks: list[tuple[int, int]] = []
    start_R = [0] * len(lengths)
    place = 0
    for r in sorted(range(len(lengths)), key=lambda r: -lengths[r]):
        count, width = blocks[-1] if blocks else (LEAST_ROWS, 0)
        if count < LEAST_ROWS or lengths[r] > LEAST_FILLED * width > 0:
            blocks[-1] = (count + 1, width)
        else:
            width = lengths[r]
            blocks.append((1, width))
        start_R[r] = place
        place += width
    return tuple(blocks), start_R


class _Row:
    """The packed row as it grows."""

    def __init__(self) -> None:
        self._count = 0
        self.ids: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []

    def add(self, ids: np.ndarray, *, place: int, position: int) -> np.ndarray:
        """Append what a sequence has from a position on; returns the tokens' numbers in the row."""
        steps = np.arange(len(ids))
        self.ids.append(ids)
        self.places.append(place + steps)
        self.positions.append(position + steps)
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

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (each.transpose(1, 2) for each in (query, key, value))
        return sdpa_attention_forward(module, q, k, v, None, **options)[0]

    spread = [packing.spread(each[0].transpose(0, 1)) for each in (query, key, value)]
    attended = [exactly(attend, *block) for block in zip(*spread, strict=True)]
    return packing.collect(attended)[None], None
