"""Cutting and padding: nothing lost, nothing misplaced, the same count on every rank."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.objective import DpkdConfig, ObjectiveConfig, SftConfig
from configs.objectives.divergence import KdConfig
from configs.objectives.policy_gradient import MiniLlmConfig, OpdConfig
from configs.objectives.preference import DdpoConfig, PladConfig
from configs.objectives.supervised import SeqKdConfig
from configs.wire import PreferenceTuple, Prompt, Response, Uid
from learner.batch import MicroBatch, collate
from learner.cut import cut, micro_batches
from learner.segments import Asked, Segment, segment
from tests.learner.learner_builders import preference_tuples, tuples_for


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def logprobs(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


PAIR = Asked(("teacher", "student"))


def known(
    context: np.ndarray,
    target: np.ndarray,
    teacher: np.ndarray,
    behaviour: np.ndarray | None = None,
) -> Segment:
    response = Response(
        ids_T=target,
        finish_reason="stop",
        teacher_logprobs_T=teacher,
        behaviour_logprobs_T=behaviour,
    )
    return Segment(context, target, response, student_drawn=behaviour is not None)


def test_pairs_are_dealt_longest_first_within_the_budget() -> None:
    # 40 tokens hold two rows of 20: one pair a rank; then two pairs of at most 10 a rank.
    assert cut([5, 10, 20, 10, 20, 8], ranks=2, rows_per_tuple=2, token_budget=40) == [
        [[2], [4]],
        [[1, 5], [3, 0]],
    ]


def test_a_pair_over_the_budget_gets_a_micro_batch_of_its_own() -> None:
    assert cut([500, 3], ranks=1, rows_per_tuple=2, token_budget=100) == [[[0]], [[1]]]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 400)
)
def test_every_pair_is_dealt_once_and_ranks_keep_step(
    lengths: list[int], ranks: int, budget: int
) -> None:
    groups = cut(lengths, ranks=ranks, rows_per_tuple=2, token_budget=budget)
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
                known(ids(11, 12), ids(13), logprobs(-1)),
                known(ids(11, 12), ids(14, 15), logprobs(-2, -3), logprobs(-4, -5)),
            ],
            [
                known(ids(21), ids(22, 23, 24), logprobs(-6, -7, -8)),
                known(ids(21), ids(25), logprobs(-9), logprobs(-10)),
            ],
        ],
        PAIR,
        teacher_first=[np.zeros(5, np.float32)] * 2,
    )
    # Both prompts once, and of each response all but its last token.
    assert batch.ids_U.tolist() == [11, 12, 14, 21, 22, 23]
    assert batch.packing.position_U.tolist() == [0, 1, 2, 0, 1, 2]
    (rows,) = batch.packing.spread(batch.ids_U)  # the longest first
    assert [ids_L[:length].tolist() for ids_L, length in zip(rows, [3, 3, 2, 1], strict=True)] == [
        [21, 22, 23],
        [11, 12, 14],
        [11, 12],
        [21],
    ]
    assert batch.packing.token_F[batch.packing.place_U].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.ids_U[batch.predicting_N].tolist() == [12, 21, 22, 23, 12, 14, 21]
    assert batch.unflatten(batch.targets_N).tolist() == [
        [[13, 0, 0], [22, 23, 24]],
        [[14, 15, 0], [25, 0, 0]],
    ]
    assert batch.lengths_SB.tolist() == [[1, 3], [2, 1]]
    assert batch.teacher_logprobs_SBT[1].tolist() == [[-2, -3, 0], [-9, 0, 0]]
    assert batch.behaviour_logprobs_SBT[1].tolist() == [[-4, -5, 0], [-10, 0, 0]]
    assert batch.first_B is not None
    assert batch.ids_U[batch.first_B].tolist() == [12, 21]


def test_prompts_are_shared_only_where_they_are_the_same() -> None:
    first = [Segment(ids(1, 2), ids(3, 4)), Segment(ids(1, 2), ids(5)), Segment(ids(6), ids(7, 8))]
    second = [Segment(ids(1, 2), ids(3)), Segment(ids(1, 2), ids(4)), Segment(ids(1, 2), ids(5))]
    asked = Asked(("teacher", "student", "document"))
    batch = collate([first, second], asked)
    assert batch.ids_U.tolist() == [1, 2, 3, 6, 7, 1, 2], "a tuple's own, not another tuple's"
    apart = collate([first, second], asked, share_prompts=False)
    assert len(apart.ids_U) == 3 + 2 + 2 + 2 + 2 + 2
    for each in (batch, apart):
        assert each.targets_N.tolist() == [3, 4, 3, 5, 4, 7, 8, 5]
        assert each.ids_U[each.predicting_N].tolist() == [2, 3, 2, 2, 2, 6, 7, 2]


def test_unflatten_passes_gradients_to_each_token() -> None:
    rows = [[Segment(ids(1), ids(2, 3))], [Segment(ids(1), ids(2))]]
    batch = collate(rows, Asked(("gold",)))
    values_N = torch.ones(3, requires_grad=True)
    (batch.unflatten(values_N) * torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).sum().backward()
    assert values_N.grad is not None and values_N.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_rank_without_a_pair_gets_a_weightless_stand_in() -> None:
    tuples = preference_tuples(3)
    shares = [micro_batches(tuples, PAIR, rank=rank, ranks=2, token_budget=1) for rank in (0, 1)]
    assert [[batch.weight for batch in share] for share in shares] == [[1, 1], [1, 0]]


def test_roles_follow_the_objective() -> None:
    assert Asked.of(DpkdConfig()).roles == ("teacher", "student")
    assert Asked.of(DpkdConfig(lm_weight=0.1)).roles == ("teacher", "student", "document")
    assert Asked.of(DpkdConfig(level="token")).roles == ("rollout",)
    assert Asked.of(SeqKdConfig()).roles == ("teacher",)
    assert Asked.of(SftConfig()).roles == ("gold",)


def test_only_token_level_preference_asks_for_actions() -> None:
    assert Asked.of(DpkdConfig()).actions is None
    assert Asked.of(DpkdConfig(level="token")).actions == "argmax"
    assert Asked.of(DpkdConfig(level="token", actions="sampled")).actions == "sampled"
    assert Asked.of(KdConfig()).actions is None


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


def one(objective: ObjectiveConfig, tuples: list[PreferenceTuple]) -> MicroBatch:
    (batch,) = micro_batches(tuples, Asked.of(objective), rank=0, ranks=1, token_budget=10**6)
    return batch


def test_rollouts_of_both_models_share_a_batch_that_knows_who_drew_them() -> None:
    objective = MiniLlmConfig(teacher_share=0.5)
    tuples = tuples_for(objective, 6)
    batch = one(objective, tuples)
    order = sorted(
        tuples,
        key=lambda t: (
            len(t.prompt.prompt_ids_P)
            + len((t.teacher_response or t.student_response or pytest.fail()).ids_T)
        ),
        reverse=True,
    )
    drawn = [item.student_response is not None for item in order]
    assert batch.student_drawn_SB.tolist() == [drawn] and len(set(drawn)) == 2
    for row, item in enumerate(order):
        response = item.student_response or item.teacher_response
        assert response is not None and response.teacher_logprobs_T is not None
        length = len(response.ids_T)
        assert batch.lengths_SB[0, row] == length
        values = batch.teacher_logprobs_SBT[0, row, :length].numpy()
        assert values.tolist() == response.teacher_logprobs_T.tolist()


def test_the_teacher_s_distributions_are_laid_out_state_by_state() -> None:
    prompt = Prompt(uid=Uid(0, 0, 0), row=0, prompt_ids_P=ids(1, 2))
    short = Response(
        ids_T=ids(5),
        finish_reason="stop",
        teacher_logprobs_T=logprobs(-1),
        teacher_top_ids_TK=np.array([[7]], np.int32),
        teacher_top_logprobs_TK=np.array([[-0.25]], np.float32),
    )
    long = Response(
        ids_T=ids(6, 7),
        finish_reason="stop",
        teacher_logprobs_T=logprobs(-1, -2),
        teacher_top_ids_TK=np.array([[8, 9], [3, 4]], np.int32),
        teacher_top_logprobs_TK=np.array([[-0.5, -1.5], [0, -np.inf]], np.float32),
    )
    tuples = [PreferenceTuple(prompt=prompt, teacher_response=r) for r in (long, short)]
    batch = one(KdConfig(), tuples)
    assert batch.top_ids_MK is not None and batch.top_logprobs_MK is not None
    assert batch.top_ids_MK.tolist() == [[8, 9], [3, -1], [7, -1]]
    assert batch.top_logprobs_MK.tolist() == [[-0.5, -1.5], [0, -np.inf], [-0.25, -np.inf]]
    assert one(SeqKdConfig(), tuples).top_ids_MK is None


def test_draws_of_actions_belong_to_the_use_of_a_prompt() -> None:
    objective = DpkdConfig(level="token", actions="sampled")
    tuples = tuples_for(objective, 5)
    seen = []
    for rank, budget in [(0, 10**6), (0, 1), (1, 1)]:
        seen.append({})
        for batch in micro_batches(
            tuples, Asked.of(objective), rank=rank, ranks=rank + 1, token_budget=budget
        ):
            assert batch.uniforms_2M is not None
            rows = batch.uniforms_2M.split(batch.lengths_SB[0].int().tolist(), dim=1)
            targets = batch.targets_N.split(batch.lengths_SB[0].int().tolist())
            for row, target_T in zip(rows, targets, strict=True):
                seen[-1][tuple(target_T.tolist())] = row.tolist()
    whole, cut_up, other_rank = seen
    assert whole == cut_up and len(whole) == 5
    assert other_rank.items() <= whole.items() and other_rank
    numbers = [number for row in whole.values() for line in row for number in line]
    assert len(set(numbers)) == len(numbers)
    assert one(DpkdConfig(level="token"), tuples).uniforms_2M is None


def test_warm_up_epochs_count_from_below_zero_and_may_draw_too() -> None:
    objective = DpkdConfig(level="token", actions="sampled")
    (item,) = tuples_for(objective, 1)
    early = replace(item, prompt=replace(item.prompt, uid=Uid(-1, 0, 0)))
    first, second = one(objective, [item]).uniforms_2M, one(objective, [early]).uniforms_2M
    assert first is not None and second is not None and not torch.equal(first, second)


@pytest.mark.parametrize(
    ("objective", "missing"),
    [
        (KdConfig(), ["teacher_logprobs_T"]),
        (KdConfig(), ["teacher_top_logprobs_TK", "teacher_top_ids_TK"]),
        (DdpoConfig(), ["reference_logprobs_T"]),
        (PladConfig(form="margin"), ["score"]),
    ],
)
def test_what_the_objective_needs_and_a_response_lacks_is_named(
    objective: ObjectiveConfig, missing: list[str]
) -> None:
    (item,) = tuples_for(objective, 1)
    assert item.teacher_response is not None
    nothing: dict[str, Any] = dict.fromkeys(missing)
    poorer = replace(item, teacher_response=replace(item.teacher_response, **nothing))
    message = f"the teacher_response of tuple 0/0/0 has no {missing[0]}, which the objective needs"
    with pytest.raises(DataError, match=message):
        one(objective, [poorer])
    assert one(SeqKdConfig(), [poorer]).top_ids_MK is None  # text is enough for others


def test_a_student_response_without_its_behaviour_is_refused() -> None:
    objective = OpdConfig()
    (item,) = tuples_for(objective, 1)
    assert item.student_response is not None
    response = replace(item.student_response, behaviour_logprobs_T=None)
    with pytest.raises(
        DataError, match="student_response of tuple 0/0/0 has no behaviour_logprobs"
    ):
        one(objective, [replace(item, student_response=response)])


def test_a_tuple_without_its_sequence_is_refused() -> None:
    (pair,) = preference_tuples(1)
    empty = replace(pair, teacher_response=None, student_response=None, weight_version=None)
    with pytest.raises(DataError, match="tuple 0/0/0 has no response, which"):
        one(KdConfig(), [empty])
    with pytest.raises(DataError, match="tuple 0/0/0 has no teacher_response"):
        one(SeqKdConfig(), [empty])
    with pytest.raises(DataError, match="tuple 0/0/0 has a teacher and a student response"):
        one(OpdConfig(), [pair])
