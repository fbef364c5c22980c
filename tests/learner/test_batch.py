"""Cutting and padding: nothing lost, nothing misplaced, the same count on every rank."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.objective import DpkdConfig, SftConfig
from configs.wire import PreferenceTuple, Prompt, Uid
from learner.batch import Segment, collate, cut, micro_batches, roles_of, segment
from tests.learner.learner_builders import preference_tuples


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def logprobs(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_pairs_are_dealt_longest_first_within_the_budget() -> None:
    # 40 tokens hold two rows of 20: one pair a rank; then two pairs of at most 10 a rank.
    assert cut([5, 10, 20, 10, 20, 8], ranks=2, rows_per_pair=2, token_budget=40) == [
        [[2], [4]],
        [[1, 5], [3, 0]],
    ]


def test_a_pair_over_the_budget_gets_a_micro_batch_of_its_own() -> None:
    assert cut([500, 3], ranks=1, rows_per_pair=2, token_budget=100) == [[[0]], [[1]]]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 400)
)
def test_every_pair_is_dealt_once_and_ranks_keep_step(
    lengths: list[int], ranks: int, budget: int
) -> None:
    groups = cut(lengths, ranks=ranks, rows_per_pair=2, token_budget=budget)
    dealt = [index for group in groups for share in group for index in share]
    assert sorted(dealt) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == ranks and group[0]
        for share in group:
            padded = len(share) * 2 * max((lengths[index] for index in share), default=0)
            assert padded <= budget or len(share) == 1


def test_collate_puts_every_token_where_it_belongs() -> None:
    batch = collate(
        [
            [
                Segment(ids(11, 12), ids(13), logprobs(-1), None),
                Segment(ids(11, 12), ids(14, 15), logprobs(-2, -3), logprobs(-4, -5)),
            ],
            [
                Segment(ids(21), ids(22, 23, 24), logprobs(-6, -7, -8), None),
                Segment(ids(21), ids(25), logprobs(-9), logprobs(-10)),
            ],
        ],
        ("teacher", "student"),
        teacher_first=np.zeros((2, 5), np.float32),
    )
    assert batch.input_ids_RL.tolist() == [
        [11, 12, 13, 0],
        [21, 22, 23, 24],
        [11, 12, 14, 15],
        [21, 25, 0, 0],
    ]
    assert batch.positions_N.tolist() == [1, 4, 5, 6, 9, 10, 12]
    next_ids_N = batch.input_ids_RL.flatten()[batch.positions_N + 1]
    assert batch.unflatten(next_ids_N).tolist() == [
        [[13, 0, 0], [22, 23, 24]],
        [[14, 15, 0], [25, 0, 0]],
    ]
    assert batch.lengths_KB.tolist() == [[1, 3], [2, 1]]
    assert batch.teacher_logprobs_KBT[1].tolist() == [[-2, -3, 0], [-9, 0, 0]]
    assert batch.behaviour_logprobs_KBT[1].tolist() == [[-4, -5, 0], [-10, 0, 0]]
    assert batch.first_positions_B is not None
    assert batch.first_positions_B.tolist() == [1, 4]


def test_unflatten_passes_gradients_to_each_token() -> None:
    rows = [[Segment(ids(1), ids(2, 3))], [Segment(ids(1), ids(2))]]
    batch = collate(rows, ("gold",))
    values_N = torch.ones(3, requires_grad=True)
    (batch.unflatten(values_N) * torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).sum().backward()
    assert values_N.grad is not None and values_N.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_rank_without_a_pair_gets_a_weightless_stand_in() -> None:
    tuples = preference_tuples(3)
    shares = [
        micro_batches(tuples, ("teacher", "student"), rank=rank, ranks=2, token_budget=1)
        for rank in (0, 1)
    ]
    assert [[batch.weight for batch in share] for share in shares] == [[1, 1], [1, 0]]


def test_roles_follow_the_objective() -> None:
    assert roles_of(DpkdConfig()) == ("teacher", "student")
    assert roles_of(DpkdConfig(lm_weight=0.1)) == ("teacher", "student", "document")
    assert roles_of(SftConfig()) == ("gold",)


def test_the_document_is_the_corpus_text_or_else_the_gold_response() -> None:
    prompt = Prompt(uid=Uid(0, 0, 0), row=7, prompt_ids_P=ids(1, 2), gold_ids_T=ids(3, 4))
    from_gold = segment(PreferenceTuple(prompt=prompt), "document")
    assert (from_gold.context_ids.tolist(), from_gold.target_ids_T.tolist()) == ([1, 2], [3, 4])
    prompt = Prompt(uid=Uid(0, 0, 0), row=7, prompt_ids_P=ids(1, 2), corpus_ids_C=ids(5, 6, 7))
    from_corpus = segment(PreferenceTuple(prompt=prompt), "document")
    assert (from_corpus.context_ids.tolist(), from_corpus.target_ids_T.tolist()) == ([5], [6, 7])


def test_a_row_without_gold_is_an_error_that_names_it() -> None:
    item = PreferenceTuple(prompt=Prompt(uid=Uid(0, 0, 0), row=7, prompt_ids_P=ids(1, 2)))
    with pytest.raises(DataError, match="row 7 has no gold response"):
        segment(item, "gold")
