"""Preference tuples -> padded tensors, cut into micro-batches by token budget.

The legend of the learner's shape suffixes:

    B  pair (one tuple) of a micro-batch
    K  role: what a sequence is to its pair ("teacher" y_t, "student" y_s, "gold", "document")
    R  sequence, context + response: R = K * B, all of one role, then all of the next
    L  position in a sequence, right-padded
    T  token of a response, right-padded with 0
    N  response tokens of all R sequences, flattened and unpadded, in order
    V  vocabulary
    D  hidden

The sequences of one pair always share a micro-batch, because the loss couples them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from configs.objective import ObjectiveConfig
from configs.wire import PreferenceTuple, Response

Role = Literal["teacher", "student", "gold", "document"]


class Segment(NamedTuple):
    """One sequence to score: log-probabilities are wanted of ``target_ids_T`` only."""

    context_ids: np.ndarray
    target_ids_T: np.ndarray
    teacher_logprobs_T: np.ndarray | None = None
    behaviour_logprobs_T: np.ndarray | None = None


def roles_of(objective: ObjectiveConfig) -> tuple[Role, ...]:
    """Return which sequences of a tuple the objective scores."""
    pair: tuple[Role, ...] = ("gold",) if objective.type == "sft" else ("teacher", "student")
    return (*pair, "document") if objective.lm_weight > 0 else pair


def segment(item: PreferenceTuple, role: Role) -> Segment:
    """Return the sequence that plays ``role`` in a tuple.

    The document of a tuple is its corpus document, whose first token is only context, or the
    gold response given its prompt where there is no corpus. Raises DataError when a row has
    neither.
    """
    prompt = item.prompt
    if role == "document" and prompt.corpus_ids_C is not None:
        return Segment(prompt.corpus_ids_C[:1], prompt.corpus_ids_C[1:])
    if role in ("gold", "document"):
        if prompt.gold_ids_T is None:
            raise DataError(
                f"row {prompt.row} has no gold response, which the objective learns from; "
                "map data.columns.response to a column that every row has, or set data.corpus "
                "for the language-model loss"
            )
        return Segment(prompt.prompt_ids_P, prompt.gold_ids_T)
    response: Response | None = getattr(item, f"{role}_response")
    assert response is not None, f"tuple {item.uid} has no {role}_response"
    assert response.teacher_logprobs_T is not None, f"{role}_response of {item.uid} is not scored"
    return Segment(
        prompt.prompt_ids_P,
        response.ids_T,
        response.teacher_logprobs_T,
        response.behaviour_logprobs_T,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences of some pairs as tensors: one forward and backward."""

    roles: tuple[Role, ...]
    input_ids_RL: Tensor
    """(R, L) int64, context + response, padded with 0."""
    positions_N: Tensor
    """(N,) int64 into the flattened (R * L): the position before each response token."""
    slots_N: Tensor
    """(N,) int64 into the flattened (R * T): where each response token belongs."""
    lengths_KB: Tensor
    """(K, B) float32, response tokens."""
    teacher_logprobs_KBT: Tensor
    """(K, B, T) float32, log p, 0 at padding and for roles that the teacher does not score."""
    behaviour_logprobs_KBT: Tensor
    """(K, B, T) float32, log mu of the sampler, 0 where there is none."""
    first_positions_B: Tensor | None
    """(B,) int64 into (R * L): each prompt's last position; None: no teacher distribution."""
    teacher_first_BV: Tensor | None
    """(B, V) float32, log p(. | x)."""
    weight: float
    """1; 0 for the stand-in of a rank that has no pair left while another has."""

    def response_shape(self) -> tuple[int, int, int]:
        """Return (K, B, T)."""
        roles, pairs, tokens = self.teacher_logprobs_KBT.shape
        return roles, pairs, tokens

    def unflatten(self, values_N: Tensor) -> Tensor:
        """Lay flat per-token values out as (K, B, T), 0 at padding; differentiable."""
        roles, pairs, tokens = self.response_shape()
        flat = values_N.new_zeros(roles * pairs * tokens)
        return flat.index_put((self.slots_N,), values_N).view(roles, pairs, tokens)

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the same micro-batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        fields = {name: getattr(self, name) for name in self.__slots__}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in fields.items()
        }
        return MicroBatch(**moved)


def cut(
    lengths: Sequence[int], *, ranks: int, rows_per_pair: int, token_budget: int
) -> list[list[list[int]]]:
    """Cut pairs into micro-batches: result[micro-batch][rank] lists indices of pairs.

    Pairs are taken longest first, in groups that give each rank as many as its budget of
    padded tokens holds (at least one), dealt out in turn. So every rank makes the same number
    of micro-batches, of nearly the same size, which the collectives of ZeRO require; every
    rank computes this from the whole batch and needs no message. Only in the last group can a
    rank come away with none.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups = []
    while order:
        per_rank = max(1, token_budget // (lengths[order[0]] * rows_per_pair))
        group, order = order[: per_rank * ranks], order[per_rank * ranks :]
        groups.append([group[rank::ranks] for rank in range(ranks)])
    return groups


def micro_batches(
    tuples: Sequence[PreferenceTuple],
    roles: tuple[Role, ...],
    *,
    rank: int,
    ranks: int,
    token_budget: int,
) -> list[MicroBatch]:
    """Return this rank's share of a batch, the same number of micro-batches on every rank."""
    segments = [[segment(item, role) for role in roles] for item in tuples]
    lengths = [max(len(s.context_ids) + len(s.target_ids_T) for s in row) for row in segments]
    groups = cut(lengths, ranks=ranks, rows_per_pair=len(roles), token_budget=token_budget)
    shortest = min(range(len(tuples)), key=lengths.__getitem__)
    batches = []
    for group in groups:
        mine = group[rank] or [shortest]
        first = [tuples[index].teacher_first_token_logprobs_V for index in mine]
        known = [values for values in first if values is not None]
        batches.append(
            collate(
                [segments[index] for index in mine],
                roles,
                teacher_first=np.stack(known) if len(known) == len(mine) else None,
                weight=1.0 if group[rank] else 0.0,
            )
        )
    return batches


def collate(
    segments: Sequence[Sequence[Segment]],
    roles: tuple[Role, ...],
    *,
    teacher_first: np.ndarray | None = None,
    weight: float = 1.0,
) -> MicroBatch:
    """Pad ``segments[pair][role]`` into one micro-batch; ``teacher_first`` is (B, V)."""
    rows = [row[k] for k in range(len(roles)) for row in segments]
    contexts = np.array([len(s.context_ids) for s in rows])
    lengths = np.array([len(s.target_ids_T) for s in rows])
    width, tokens = int((contexts + lengths).max()), int(lengths.max())
    ids_RL = np.zeros((len(rows), width), np.int64)
    teacher_RT = np.zeros((len(rows), tokens), np.float32)
    behaviour_RT = np.zeros((len(rows), tokens), np.float32)
    for r, (s, context, length) in enumerate(zip(rows, contexts, lengths, strict=True)):
        ids_RL[r, :context] = s.context_ids
        ids_RL[r, context : context + length] = s.target_ids_T
        if s.teacher_logprobs_T is not None:
            teacher_RT[r, :length] = s.teacher_logprobs_T
        if s.behaviour_logprobs_T is not None:
            behaviour_RT[r, :length] = s.behaviour_logprobs_T
    starts = np.arange(len(rows)) * width + contexts - 1
    row_N = np.repeat(np.arange(len(rows)), lengths)
    token_N = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    shape = (len(roles), len(segments))
    return MicroBatch(
        roles=roles,
        input_ids_RL=torch.from_numpy(ids_RL),
        positions_N=torch.from_numpy(starts[row_N] + token_N),
        slots_N=torch.from_numpy(row_N * tokens + token_N),
        lengths_KB=torch.from_numpy(lengths.astype(np.float32)).view(shape),
        teacher_logprobs_KBT=torch.from_numpy(teacher_RT).view(*shape, tokens),
        behaviour_logprobs_KBT=torch.from_numpy(behaviour_RT).view(*shape, tokens),
        first_positions_B=(
            None if teacher_first is None else torch.from_numpy(starts[: len(segments)])
        ),
        teacher_first_BV=None if teacher_first is None else torch.from_numpy(teacher_first),
        weight=weight,
    )
