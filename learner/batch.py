"""Sequences of some tuples as tensors: what one forward and backward takes.

The legend of the learner's shape suffixes:

    B  tuple of a micro-batch: a pair, or a single sequence
    S  side: what a sequence is to its tuple (its role: y_t, y_s, gold, document, ...)
    R  sequence, context + response: R = S * B, all of one side, then all of the next
    L  position in a sequence, right-padded
    U  token of all sequences, each once: prompts that sequences share, too, and no padding
    T  token of a response, right-padded with 0
    N  response tokens of all R sequences, flattened and unpadded, in order
    M  those of the first side, which come first: M <= N
    K  the teacher's likeliest tokens at a state
    E  event at a state: one of the K tokens, or any other, the tail: E = K + 1
    J  tokens of which one row of the output head gives log-probabilities
    V  vocabulary
    D  hidden

The sequences of one tuple always share a micro-batch, because the loss couples them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.wire import Uid
from learner.packing import Packing, pack
from learner.segments import Actions, Asked, Segment

_ACTIONS_STREAM = 0x4143
"""Keeps the draws of actions apart from others that a uid seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences of some tuples as tensors: one forward and backward.

    What is not known of a sequence is 0, as padding is; ``learner/segments.py`` has checked
    that all is known that the objective needs.
    """

    asked: Asked
    ids_U: Tensor
    """(U,) int64, contexts and responses, each response's last token left out."""
    packing: Packing
    """Where they are in the sequences."""
    predicting_N: Tensor
    """(N,) int64 into U: the token before each response token."""
    targets_N: Tensor
    """(N,) int64, the response tokens."""
    slots_N: Tensor
    """(N,) int64 into the flattened (R * T): where each response token belongs."""
    lengths_SB: Tensor
    """(S, B) float32, response tokens."""
    teacher_logprobs_SBT: Tensor
    """(S, B, T) float32, log p."""
    reference_logprobs_SBT: Tensor
    """(S, B, T) float32, log ref of the initial student."""
    behaviour_logprobs_SBT: Tensor
    """(S, B, T) float32, log mu of the sampler."""
    scores_SB: Tensor
    """(S, B) float32, the judge's score."""
    student_drawn_SB: Tensor
    """(S, B) bool, whether the student drew the sequence."""
    first_B: Tensor | None
    """(B,) int64 into U: each prompt's last token; None: no teacher distribution."""
    teacher_first_BV: Tensor | None
    """(B, V) float32, log p(. | x)."""
    top_ids_MK: Tensor | None
    """(M, K) int32, the teacher's likeliest tokens at each state, likeliest first; -1 for one that
    the teacher gives probability 0. None: the objective asks no distribution."""
    top_logprobs_MK: Tensor | None
    """(M, K) float32, log p of them; minus infinity where the id is -1."""
    uniforms_2M: Tensor | None
    """(2, M) float64 in [0, 1): what draws the student's and the teacher's action at each state;
    None: the likeliest is taken, or none."""
    weight: float
    """1; 0 for the stand-in of a rank that has no tuple left while another has."""

    @property
    def inputs(self) -> dict[str, Any]:
        """The arguments of ``ResponseScorer.forward``."""
        return {
            "ids_U": self.ids_U,
            "packing": self.packing,
            "predicting_N": self.predicting_N,
            "targets_N": self.targets_N,
            "first_B": self.first_B,
            "top_ids_MK": self.top_ids_MK,
            "actions": self.asked.actions,
            "uniform_M": None if self.uniforms_2M is None else self.uniforms_2M[0],
        }

    def response_shape(self) -> tuple[int, int, int]:
        """Return (S, B, T)."""
        sides, tuples, tokens = self.teacher_logprobs_SBT.shape
        return sides, tuples, tokens

    def unflatten(self, values_N: Tensor) -> Tensor:
        """Lay flat per-token values out as (S, B, T), 0 at padding; differentiable."""
        sides, tuples, tokens = self.response_shape()
        flat = values_N.new_zeros(sides * tuples * tokens)
        return flat.index_put((self.slots_N,), values_N).view(sides, tuples, tokens)

    def unflatten_first(self, values_M: Tensor) -> Tensor:
        """Lay the first side's per-token values out as (B, T), 0 at padding; differentiable."""
        _, tuples, tokens = self.response_shape()
        flat = values_M.new_zeros(tuples * tokens)
        slots_M = self.slots_N[: len(values_M)]
        return flat.index_put((slots_M,), values_M).view(tuples, tokens)

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the same micro-batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        fields = {name: getattr(self, name) for name in self.__slots__}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in fields.items()
        } | {"packing": self.packing.to(device)}
        return MicroBatch(**moved)


def collate(
    segments: Sequence[Sequence[Segment]],
    asked: Asked,
    *,
    teacher_first: Sequence[np.ndarray] = (),
    weight: float = 1.0,
    share_prompts: bool = True,
) -> MicroBatch:
    """Make ``segments[tuple][side]`` one micro-batch; ``teacher_first`` is B arrays (V,).

    With ``share_prompts`` the sequences of a tuple that follow one prompt hold it in common.
    """
    rows = [row[side] for side in range(len(asked.roles)) for row in segments]
    packing, ids_U, predicting_N = pack(segments, share_contexts=share_prompts)
    lengths = np.array([len(s.target_ids_T) for s in rows])
    tokens = int(lengths.max())
    starts = lengths.cumsum() - lengths
    row_N = np.repeat(np.arange(len(rows)), lengths)
    token_N = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    shape = (len(asked.roles), len(segments))
    scores = [0.0 if s.known is None or s.known.score is None else s.known.score for s in rows]
    top_ids_MK, top_logprobs_MK = _top(rows[: len(segments)], asked)
    return MicroBatch(
        asked=asked,
        ids_U=ids_U,
        packing=packing,
        predicting_N=predicting_N,
        targets_N=torch.from_numpy(np.concatenate([s.target_ids_T for s in rows]).astype(np.int64)),
        slots_N=torch.from_numpy(row_N * tokens + token_N),
        lengths_SB=torch.from_numpy(lengths.astype(np.float32)).view(shape),
        teacher_logprobs_SBT=_padded(rows, "teacher_logprobs_T", tokens).view(*shape, tokens),
        reference_logprobs_SBT=_padded(rows, "reference_logprobs_T", tokens).view(*shape, tokens),
        behaviour_logprobs_SBT=_padded(rows, "behaviour_logprobs_T", tokens).view(*shape, tokens),
        scores_SB=torch.tensor(scores, dtype=torch.float32).view(shape),
        student_drawn_SB=torch.tensor([s.student_drawn for s in rows]).view(shape),
        first_B=predicting_N[starts[: len(segments)]] if teacher_first else None,
        teacher_first_BV=torch.from_numpy(np.stack(teacher_first)) if teacher_first else None,
        top_ids_MK=top_ids_MK,
        top_logprobs_MK=top_logprobs_MK,
        uniforms_2M=_uniforms(rows[: len(segments)], asked.actions),
        weight=weight,
    )


def _padded(rows: Sequence[Segment], name: str, tokens: int) -> Tensor:
    """Return (R, T) float32 of one of a response's per-token arrays, 0 where it is not known."""
    values_RT = np.zeros((len(rows), tokens), np.float32)
    for r, row in enumerate(rows):
        values = None if row.known is None else getattr(row.known, name)
        if values is not None:
            values_RT[r, : len(values)] = values
    return torch.from_numpy(values_RT)


def _top(rows: Sequence[Segment], asked: Asked) -> tuple[Tensor | None, Tensor | None]:
    """Return the teacher's likeliest tokens at every state of the first side; see MicroBatch."""
    if "teacher_distribution" not in asked.needs:
        return None, None
    ids, logprobs = [], []
    for row in rows:
        assert row.known is not None and row.known.teacher_top_ids_TK is not None
        assert row.known.teacher_top_logprobs_TK is not None
        ids.append(row.known.teacher_top_ids_TK)
        logprobs.append(row.known.teacher_top_logprobs_TK)
    shape = (sum(map(len, ids)), max(values.shape[1] for values in ids))
    ids_MK, logprobs_MK = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
    stop = 0
    for row_ids, row_logprobs in zip(ids, logprobs, strict=True):
        start, stop = stop, stop + len(row_ids)
        ids_MK[start:stop, : row_ids.shape[1]] = np.where(row_logprobs == -np.inf, -1, row_ids)
        logprobs_MK[start:stop, : row_ids.shape[1]] = row_logprobs
    return torch.from_numpy(ids_MK), torch.from_numpy(logprobs_MK)


def _uniforms(rows: Sequence[Segment], actions: Actions | None) -> Tensor | None:
    """Return (2, M) numbers that depend on the use of the prompt alone, not on rank or cut."""
    if actions != "sampled":
        return None
    drawn = [_generator(row.uid).random((2, len(row.target_ids_T))) for row in rows]
    return torch.from_numpy(np.concatenate(drawn, axis=1))


def _generator(uid: Uid | None) -> np.random.Generator:
    assert uid is not None, "a sampled action belongs to a use of a prompt"
    return np.random.default_rng([_ACTIONS_STREAM, *(number % 2**32 for number in uid)])
