"""A batch of tuples -> micro-batches, by a budget of padded tokens, dealt out to ranks.

Shape suffixes: see ``learner/batch.py``.
"""

from collections.abc import Sequence

from configs.wire import PreferenceTuple
from learner.batch import MicroBatch, collate
from learner.segments import Asked, segment


def cut(
    lengths: Sequence[int], *, ranks: int, rows_per_tuple: int, token_budget: int
) -> list[list[list[int]]]:
    """Cut tuples into micro-batches: result[micro-batch][rank] lists indices of tuples.

    Tuples are taken longest first, in groups that give each rank as many as its budget of
    padded tokens holds (at least one), dealt out in turn. So every rank makes the same number
    of micro-batches, of nearly the same size, which the collectives of ZeRO require; every
    rank computes this from the whole batch and needs no message. Only in the last group can a
    rank come away with none.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups = []
    while order:
        per_rank = max(1, token_budget // (lengths[order[0]] * rows_per_tuple))
        group, order = order[: per_rank * ranks], order[per_rank * ranks :]
        groups.append([group[rank::ranks] for rank in range(ranks)])
    return groups


def micro_batches(
    tuples: Sequence[PreferenceTuple],
    asked: Asked,
    *,
    rank: int,
    ranks: int,
    token_budget: int,
    share_prompts: bool = True,
) -> list[MicroBatch]:
    """Return this rank's share of a batch, the same number of micro-batches on every rank."""
    segments = [[segment(item, role, asked.needs) for role in asked.roles] for item in tuples]
    lengths = [max(len(s.context_ids) + len(s.target_ids_T) for s in row) for row in segments]
    rows = len(asked.roles)
    groups = cut(lengths, ranks=ranks, rows_per_tuple=rows, token_budget=token_budget)
    shortest = min(range(len(tuples)), key=lengths.__getitem__)
    known = [item.teacher_first_token_logprobs_V for item in tuples]
    first = [values for values in known if values is not None]
    batches = []
    for group in groups:
        mine = group[rank] or [shortest]
        batches.append(
            collate(
                [segments[index] for index in mine],
                asked,
                teacher_first=[first[index] for index in mine] if len(first) == len(known) else [],
                weight=1.0 if group[rank] else 0.0,
                share_prompts=share_prompts,
            )
        )
    return batches
