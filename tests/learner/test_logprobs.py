"""Response log-probabilities: equal to the naive form, and never a whole sequence's logits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.errors import ConfigError
from learner import logprobs
from learner.batch import MicroBatch, micro_batches
from learner.logprobs import ResponseScorer, disable_dropout, prove_scorer
from tests.learner.learner_builders import FAMILIES, preference_tuples, small_model


def batch_of(pairs: int = 5) -> MicroBatch:
    (batch,) = micro_batches(
        preference_tuples(pairs), ("teacher", "student"), rank=0, ranks=1, token_budget=10**6
    )
    return batch


def naive_logprobs(model: nn.Module, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return the same two answers from the logits of whole sequences."""
    logits = model(input_ids=batch.input_ids_RL).logits.log_softmax(-1).flatten(0, 1)
    targets_N = batch.input_ids_RL.flatten()[batch.positions_N + 1]
    return logits[batch.positions_N, targets_N], logits[batch.first_positions_B]


@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_logprobs_equal_the_naive_ones_in_value_and_gradient(family: str) -> None:
    model, batch = small_model(family), batch_of()
    actual_N, actual_BV = ResponseScorer(model, chunk_tokens=16)(
        batch.input_ids_RL, batch.positions_N, batch.first_positions_B
    )
    weight_N = torch.linspace(-1, 1, len(actual_N))
    (actual_N * weight_N).mean().backward()
    actual = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected_N, expected_BV = naive_logprobs(model, batch)
    (expected_N * weight_N).mean().backward()

    torch.testing.assert_close(actual_N, expected_N, atol=1e-5, rtol=0)
    torch.testing.assert_close(actual_BV, expected_BV.detach(), atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(actual[name], parameter.grad, atol=1e-5, rtol=0, msg=name)


def test_the_head_s_gradient_is_exact_in_double_precision() -> None:
    hidden = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 1, 1, 3, 2, 0])
    function: Any = logprobs._ChunkedTokenLogprobs.apply
    assert torch.autograd.gradcheck(lambda *p: function(*p, targets, 3), (hidden, weight, bias))


def test_no_more_than_a_chunk_of_logits_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    logits_of = logprobs._logits

    def recorded(hidden: Tensor, *head: Any) -> Tensor:
        rows.append(len(hidden))
        return logits_of(hidden, *head)

    monkeypatch.setattr(logprobs, "_logits", recorded)
    batch, model = batch_of(), small_model()
    response_tokens, vocabulary = len(batch.positions_N), model.config.vocab_size
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the whole head was called"))
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor.shape), tensor)[1], lambda tensor: tensor
    ):
        scorer = ResponseScorer(model, chunk_tokens=16)
        logprobs_N, _ = scorer(batch.input_ids_RL, batch.positions_N)
        logprobs_N.sum().backward()

    assert max(rows) == 16
    assert sum(rows) == 2 * response_tokens  # once forward, once backward: no prompt, no padding
    assert kept and not [shape for shape in kept if shape and shape[-1] == vocabulary]


def test_padding_changes_nothing() -> None:
    model, batch = small_model("opt"), batch_of(1)
    scorer = ResponseScorer(model, chunk_tokens=64)
    rows, width = batch.input_ids_RL.shape
    wider_RL = torch.full((rows, width + 9), 7)
    wider_RL[:, :width] = batch.input_ids_RL
    positions_N = batch.positions_N // width * (width + 9) + batch.positions_N % width
    expected_N, _ = scorer(batch.input_ids_RL, batch.positions_N)
    actual_N, _ = scorer(wider_RL, positions_N)
    torch.testing.assert_close(actual_N, expected_N, atol=1e-5, rtol=0)


def test_a_bfloat16_model_answers_in_float32() -> None:
    batch = batch_of()
    model = small_model().bfloat16()
    logprobs_N, first_BV = ResponseScorer(model, chunk_tokens=16)(
        batch.input_ids_RL, batch.positions_N, batch.first_positions_B
    )
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
        prove_scorer(ResponseScorer(model, chunk_tokens=16))


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
