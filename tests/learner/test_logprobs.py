"""Response log-probabilities: equal to the naive form, and never a whole sequence's logits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.errors import ConfigError
from configs.objective import DpkdConfig
from configs.objectives.divergence import KdConfig
from learner import logprobs, packing, response_head
from learner.batch import MicroBatch, collate
from learner.cut import micro_batches
from learner.logprobs import ResponseScorer, disable_dropout, prove_scorer
from learner.packing import Packing
from learner.precision import EVEN_ROWS, matmul_precision, rows_to_add
from learner.response_head import StudentScores
from learner.segments import Asked, Segment, segment
from tests.learner.learner_builders import (
    FAMILIES,
    VOCABULARY,
    preference_tuples,
    small_model,
    tuples_for,
)

PAIR = Asked(("teacher", "student"))


def segments_of(pairs: int) -> list[list[Segment]]:
    return [[segment(item, role) for role in PAIR.roles] for item in preference_tuples(pairs)]


def batch_of(pairs: int = 5, *, share_prompts: bool = True) -> MicroBatch:
    first = [np.zeros(VOCABULARY, np.float32)] * pairs
    return collate(segments_of(pairs), PAIR, teacher_first=first, share_prompts=share_prompts)


def naive_logprobs(model: nn.Module, pairs: int = 5) -> tuple[Tensor, Tensor]:
    """Return the same two answers from the logits of whole sequences, one after the other."""
    expected, first = [], []
    for side in range(2):
        for row in segments_of(pairs):
            context, target = (torch.from_numpy(ids).long() for ids in row[side][:2])
            logits_LV = model(input_ids=torch.cat([context, target])[None]).logits[0]
            logprobs_TV = logits_LV.log_softmax(-1)[len(context) - 1 : -1]
            expected.append(logprobs_TV.gather(1, target[:, None])[:, 0])
            first.append(logprobs_TV[0])
    return torch.cat(expected), torch.stack(first[:pairs])


def scores_of(scorer: ResponseScorer, batch: MicroBatch) -> StudentScores:
    return StudentScores(*scorer(**batch.inputs))


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_chunked_logprobs_equal_the_naive_ones_in_value_and_gradient(
    family: str, share_prompts: bool, packs: bool
) -> None:
    model = small_model(family)
    expected_N, expected_BV = naive_logprobs(model)
    weight_N = torch.linspace(-1, 1, len(expected_N))
    (expected_N * weight_N).mean().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    scorer = ResponseScorer(model, logits_at_once=16 * VOCABULARY)
    assert scorer.packs
    scorer.packs = packs
    scores = scores_of(scorer, batch_of(share_prompts=share_prompts))
    (scores.logprobs_N * weight_N).mean().backward()

    torch.testing.assert_close(scores.logprobs_N, expected_N, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.first_BV, expected_BV.detach(), atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(expected[name], parameter.grad, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_activations_are_those_of_the_packed_sequences(family: str) -> None:
    gradients = []
    for recompute in (False, True):
        model = small_model(family).train()
        disable_dropout(model)
        if recompute:
            model.gradient_checkpointing_enable()
        scorer = ResponseScorer(model, logits_at_once=16 * VOCABULARY)
        scores_of(scorer, batch_of()).logprobs_N.mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_model_with_windows_or_attention_of_its_own_computes_on_padded_rows() -> None:
    window = small_model("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=0)
    assert not ResponseScorer(window, logits_at_once=1).packs
    eager = small_model("llama", attn_implementation="eager")
    assert not ResponseScorer(eager, logits_at_once=1).packs


def test_a_model_that_does_not_listen_to_a_packing_is_found_out() -> None:
    model = small_model("gpt2")
    scorer = ResponseScorer(model, logits_at_once=16 * VOCABULARY)
    model.config._attn_implementation = "sdpa"  # its attention sees one long row
    assert scorer.packs
    prove_scorer(scorer)
    assert not scorer.packs
    expected_N, _ = naive_logprobs(model)
    actual_N = scores_of(scorer, batch_of()).logprobs_N
    torch.testing.assert_close(actual_N, expected_N, atol=1e-5, rtol=0)


def test_a_packed_row_knows_its_model_alone() -> None:
    """Two models in a process, as a student and a reference: neither hears of the other."""
    packed, plain = small_model("llama"), small_model("llama")
    ResponseScorer(packed, logits_at_once=1)
    ids_RL = torch.arange(12)[None]
    torch.testing.assert_close(
        packed(input_ids=ids_RL).logits, plain(input_ids=ids_RL).logits, atol=1e-6, rtol=0
    )


def test_the_head_s_gradient_is_exact_in_double_precision() -> None:
    hidden = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    targets_NJ = torch.tensor([0, 4, 1, 1, 3, 2, 0])[:, None]
    function: Any = response_head._ChunkedLogprobs.apply
    assert torch.autograd.gradcheck(
        lambda *p: function(*p, targets_NJ, None, 3), (hidden, weight, bias)
    )


def test_no_more_than_a_chunk_of_logits_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    logits_of = response_head._logits

    def recorded(hidden: Tensor, *head: Any) -> Tensor:
        rows.append(len(hidden))
        return logits_of(hidden, *head)

    monkeypatch.setattr(response_head, "_logits", recorded)
    batch, model = batch_of(), small_model()
    batch = replace(batch, first_B=None)
    response_tokens, vocabulary = len(batch.targets_N), model.config.vocab_size
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the whole head was called"))
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor.shape), tensor)[1], lambda tensor: tensor
    ):
        scores_of(
            ResponseScorer(model, logits_at_once=16 * VOCABULARY), batch
        ).logprobs_N.sum().backward()

    assert max(rows) == 16
    assert sum(rows) == 2 * response_tokens  # once forward, once backward: no prompt, no padding
    assert kept and not [shape for shape in kept if shape and shape[-1] == vocabulary]


def test_where_all_logits_fit_at_once_they_are_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients, counts = [], []
    logits_of = response_head._logits
    for at_once in (10**6, 16 * VOCABULARY):
        rows: list[int] = []
        monkeypatch.setattr(
            response_head,
            "_logits",
            lambda h, *r, seen=rows: (seen.append(len(h)), logits_of(h, *r))[1],
        )
        model, batch = small_model(), replace(batch_of(), first_B=None)
        scores_of(ResponseScorer(model, logits_at_once=at_once), batch).logprobs_N.mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        counts.append(sum(rows) / len(batch.targets_N))
    assert counts == [1, 2]
    torch.testing.assert_close(*gradients)


def widened(packed: Packing, by: int) -> Packing:
    """Return the same sequences in one block that is wider, with a token behind each."""
    ((rows, width),) = packed.blocks
    token_RL = torch.nn.functional.pad(packed.token_F.view(rows, width), (0, by), value=7)
    place_U = packed.place_U // width * (width + by) + packed.place_U % width
    blocks = ((rows, width + by),)
    return packed._replace(token_F=token_RL.flatten(), place_U=place_U, blocks=blocks)


@pytest.mark.parametrize("packs", [True, False])
def test_blocks_of_similar_length_change_nothing_but_their_padding(
    packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)

    def draw(tokens: int) -> np.ndarray:
        return generator.integers(VOCABULARY, size=tokens, dtype=np.int32)

    sides = [
        [Segment(prompt, draw(tokens)) for tokens in generator.integers(2, 24, size=2)]
        for prompt in map(draw, generator.integers(1, 6, size=20))
    ]
    seen: dict[int, tuple[Packing, torch.Tensor]] = {}
    for least in (packing.LEAST_ROWS, 10**9):
        monkeypatch.setattr(packing, "LEAST_ROWS", least)
        batch = collate(sides, Asked(("teacher", "student")))
        scorer = ResponseScorer(small_model(), logits_at_once=10**6)
        scorer.packs &= packs
        seen[least] = (batch.packing, scores_of(scorer, batch).logprobs_N.detach())
    (several, actual_N), (one, expected_N) = seen.values()
    assert len(several.blocks) > 2 and len(one.blocks) == 1
    assert all(rows >= 8 for rows, _ in several.blocks[:-1])
    assert len(several.token_F) < 0.8 * len(one.token_F)
    torch.testing.assert_close(actual_N, expected_N, atol=1e-5, rtol=0)


def test_padding_changes_nothing() -> None:
    model, batch = small_model("opt"), batch_of(1)
    scorer = ResponseScorer(model, logits_at_once=64 * VOCABULARY)
    expected_N = scores_of(scorer, batch).logprobs_N
    wider = replace(batch, packing=widened(batch.packing, 9))
    for scorer.packs in (True, False):
        actual_N = scores_of(scorer, wider).logprobs_N
        torch.testing.assert_close(actual_N, expected_N, atol=1e-5, rtol=0)


def test_rows_for_few_shapes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    found = []
    logits_of = response_head._logits
    monkeypatch.setattr(
        response_head, "_logits", lambda h, *r: (seen.append(len(h)), logits_of(h, *r))[1]
    )
    for multiple in (1, EVEN_ROWS):  # products stay exact: only their rows change
        for module in (logprobs, response_head):
            monkeypatch.setattr(module, "rows_to_add", lambda rows, _, by=multiple: -rows % by)
        seen.clear()
        model, batch = small_model(), replace(batch_of(), first_B=None)
        model.base_model.register_forward_pre_hook(
            lambda _, __, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
        )
        logprobs_N = scores_of(ResponseScorer(model, logits_at_once=10**6), batch).logprobs_N
        logprobs_N.mean().backward()
        assert logprobs_N.shape == batch.targets_N.shape
        found.append((logprobs_N, [parameter.grad for parameter in model.parameters()]))
        assert all(rows % EVEN_ROWS == 0 for rows in seen) == (multiple == EVEN_ROWS), seen
    torch.testing.assert_close(*found)


def test_rows_are_added_where_products_are_in_bfloat16() -> None:
    assert rows_to_add(130, torch.float32) == rows_to_add(130, torch.float64) == 0
    assert rows_to_add(130, torch.bfloat16) == 62
    with matmul_precision("medium"):
        assert (rows_to_add(130, torch.float32), rows_to_add(128, torch.float32)) == (62, 0)
        assert rows_to_add(130, torch.float64) == 0


def test_a_bfloat16_model_answers_in_float32() -> None:
    batch = batch_of()
    model = small_model().bfloat16()
    logprobs_N, first_BV = ResponseScorer(model, logits_at_once=16 * VOCABULARY)(**batch.inputs)
    assert logprobs_N.dtype == first_BV.dtype == torch.float32
    torch.testing.assert_close(first_BV.exp().sum(-1), torch.ones(len(first_BV)))
    logprobs_N.sum().backward()
    assert model.lm_head.weight.grad.dtype == torch.bfloat16


def test_a_model_that_caps_its_logits_is_refused() -> None:
    class Capped(type(small_model())):
        def forward(self, *args: object, **kwargs: object) -> object:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits.tanh()
            return output

    model = small_model()
    model.__class__ = Capped
    with pytest.raises(ConfigError, match="differ from its own forward"):
        prove_scorer(ResponseScorer(model, logits_at_once=16 * VOCABULARY))


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_off_even_in_training_mode(family: str) -> None:
    rates: dict[str, Any] = {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
    if family == "opt":
        rates = {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5}
    elif family != "gpt2":
        rates = {"attention_dropout": 0.5}
    model, ids_RL = small_model(family, **rates), torch.arange(12)[None]
    expected = model(input_ids=ids_RL).logits
    model.train()
    assert not torch.allclose(model(input_ids=ids_RL).logits, expected)
    disable_dropout(model)
    torch.testing.assert_close(model(input_ids=ids_RL).logits, expected)


def head_arguments(vocabulary: int) -> tuple[Tensor, ...]:
    generator = torch.manual_seed(0)
    shapes = (7, 4), (vocabulary, 4), (vocabulary,)
    return tuple(
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in shapes
    )


LISTED_NJ = torch.tensor([[False, True, True, True, False]]).expand(7, 5)
"""A response token, three of the teacher's, an action."""


def test_the_gradient_of_several_targets_and_a_tail_is_exact_in_double_precision() -> None:
    targets_NJ = torch.randint(0, 9, (7, 5), generator=torch.manual_seed(1))
    function: Any = response_head._ChunkedLogprobs.apply
    assert torch.autograd.gradcheck(
        lambda *p: function(*p, targets_NJ, LISTED_NJ, 3), head_arguments(9)
    )


def test_several_targets_and_the_tail_are_those_of_a_full_softmax() -> None:
    hidden, weight, bias = head_arguments(9)
    targets_NJ = torch.stack([torch.randperm(9)[:5] for _ in range(7)])
    function: Any = response_head._ChunkedLogprobs.apply
    actual_NJ = function(hidden, weight, bias, targets_NJ, LISTED_NJ, 3)
    full_NV = (hidden @ weight.T + bias).softmax(-1)
    expected_NJ = full_NV.gather(1, targets_NJ)
    torch.testing.assert_close(actual_NJ[:, :-1].exp(), expected_NJ)
    torch.testing.assert_close(actual_NJ[:, -1].exp(), 1 - expected_NJ[:, 1:4].sum(-1))


def test_the_tail_of_a_whole_vocabulary_is_empty_and_has_no_gradient() -> None:
    hidden, weight, bias = head_arguments(3)
    targets_NJ = torch.tensor([[0, 1, 2, 0, 2]]).expand(7, 5)
    function: Any = response_head._ChunkedLogprobs.apply
    logprobs_NJ = function(hidden, weight, bias, targets_NJ, LISTED_NJ, 3)
    assert logprobs_NJ[:, -1].isneginf().all()
    logprobs_NJ[:, :-1].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (hidden, weight, bias))


def head_of(vocabulary: int) -> tuple[Tensor, response_head.ResponseHead, Tensor]:
    """Return hidden states, a head over them, and its probabilities."""
    torch.manual_seed(2)
    linear, hidden_MD = nn.Linear(4, vocabulary), torch.randn(7, 4)
    return hidden_MD, response_head.ResponseHead(linear, 3), linear(hidden_MD).softmax(-1)


def test_tokens_that_the_student_lacks_are_no_part_of_its_distribution() -> None:
    hidden_MD, head, full_MV = head_of(9)
    top_ids_MK = torch.tensor([[2, 9, 5, -1, 40]], dtype=torch.int32).expand(7, 5)
    scores = StudentScores(*head(hidden_MD, torch.zeros(7).long(), top_ids_MK=top_ids_MK))
    assert scores.top_MK is not None and scores.tail_M is not None
    assert scores.top_MK.isneginf().tolist() == [[False, True, False, True, True]] * 7
    torch.testing.assert_close(scores.top_MK[:, [0, 2]].exp(), full_MV[:, [2, 5]])
    torch.testing.assert_close(scores.tail_M.exp(), 1 - full_MV[:, [2, 5]].sum(-1))
    assert scores.tail_count_M is not None and scores.tail_count_M.tolist() == [7.0] * 7
    assert scores.action_ids_M is None and scores.action_logprobs_M is None


@pytest.mark.parametrize("actions", ["argmax", "sampled"])
def test_the_student_s_actions_are_chosen_from_its_whole_distribution(actions: str) -> None:
    hidden_MD, head, full_MV = head_of(9)
    uniform_M = torch.linspace(0, 0.99, 7, dtype=torch.float64) if actions == "sampled" else None
    top_ids_MK = torch.zeros(7, 1, dtype=torch.int32)
    scores = StudentScores(
        *head(
            hidden_MD,
            torch.zeros(7).long(),
            top_ids_MK=top_ids_MK,
            actions=actions,
            uniform_M=uniform_M,
        )
    )
    expected_M = full_MV.argmax(-1)
    if uniform_M is not None:
        expected_M = (full_MV.double().cumsum(-1) <= uniform_M[:, None]).sum(-1)
        assert expected_M.unique().numel() > 2
    assert scores.action_ids_M is not None and scores.action_logprobs_M is not None
    assert scores.action_ids_M.tolist() == expected_M.tolist()
    expected_M = full_MV.gather(1, expected_M[:, None])[:, 0]
    torch.testing.assert_close(scores.action_logprobs_M.exp(), expected_M)


def test_documents_after_the_visited_states_are_scored_as_ever() -> None:
    objective = KdConfig(lm_weight=1.0)
    tuples = tuples_for(objective, 4, corpus=True)
    (batch,) = micro_batches(tuples, Asked.of(objective), rank=0, ranks=1, token_budget=10**6)
    scorer = ResponseScorer(small_model(), logits_at_once=16 * VOCABULARY)
    alone = replace(batch, top_ids_MK=None)
    assert batch.top_ids_MK is not None and len(batch.top_ids_MK) < len(batch.targets_N)
    actual_N, expected_N = (scores_of(scorer, b).logprobs_N for b in (batch, alone))
    torch.testing.assert_close(actual_N, expected_N)


def test_a_wide_question_too_keeps_no_more_than_a_chunk_of_logits() -> None:
    objective = DpkdConfig(level="token", actions="sampled")
    tuples = tuples_for(objective, 6)
    (batch,) = micro_batches(tuples, Asked.of(objective), rank=0, ranks=1, token_budget=10**6)
    model = small_model()
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor.shape), tensor)[1], lambda tensor: tensor
    ):
        scores = scores_of(ResponseScorer(model, logits_at_once=16 * VOCABULARY), batch)
        assert scores.top_MK is not None
        scores.top_MK.sum().backward()
    vocabulary = model.config.vocab_size
    assert kept and not [shape for shape in kept if shape and shape[-1] == vocabulary]
