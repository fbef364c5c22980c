"""The scorer against a plain forward: one sequence, full logits, no padding, no chunks."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from actors import scoring
from actors.limits import Limits
from actors.scoring import TorchScorer, gives_finite, token_batches
from configs.errors import ConfigError, DependencyError
from configs.models import DType, Family

VOCAB = 97
PROMPT_LENGTHS = (5, 1, 17, 3, 9, 2, 30)
RESPONSE_LENGTHS = (4, 6, 1, 12, 9, 1, 3)


def save_model(family: str, folder: Path, **changes: object) -> str:
    """Save a random model whose distributions are far from uniform."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes: dict[str, object] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": family in ("gpt2", "opt", "qwen2"),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    if family == "opt":  # with the projections of OPT-350M around the body
        sizes |= {"ffn_dim": 48, "word_embed_proj_dim": 16}
    elif family != "gpt2":
        sizes |= {"num_key_value_heads": 2, "intermediate_size": 48}
    if family == "qwen3":
        sizes |= {"head_dim": 8}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **(sizes | changes)), dtype=torch.float32
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return str(folder)


def make_pairs() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return prompts and responses of mixed lengths, in no order of length."""
    rng = np.random.default_rng(3)

    def draw(lengths: tuple[int, ...]) -> list[np.ndarray]:
        return [rng.integers(0, VOCAB, n).astype(np.int32) for n in lengths]

    return draw(PROMPT_LENGTHS), draw(RESPONSE_LENGTHS)


@torch.no_grad()
def plain_distribution(model: PreTrainedModel, prompt: np.ndarray, response: np.ndarray):
    """Return (T, V) by the definition: one sequence, all logits."""
    ids = torch.from_numpy(np.concatenate([prompt, response])).long()
    logprobs = torch.log_softmax(model(input_ids=ids[None]).logits[0].float(), dim=-1).numpy()
    start = len(prompt) - 1
    return logprobs[start : start + len(response)]


@pytest.mark.parametrize("family", get_args(Family))
def test_batched_scores_equal_a_plain_unbatched_forward(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 7 * VOCAB)  # the head goes 7 rows at a time
    folder = save_model(family, tmp_path)
    prompts, responses = make_pairs()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    scorer = TorchScorer(folder, batch_tokens=60)
    scores = scorer.score(prompts, responses, first_token=True, top_k=9)

    for prompt, response, score in zip(prompts, responses, scores, strict=True):
        expected_TV = plain_distribution(model, prompt, response)
        expected_T = expected_TV[np.arange(len(response)), response]
        np.testing.assert_allclose(score.logprobs_T, expected_T, atol=1e-5)
        assert score.first_token_logprobs_V is not None
        np.testing.assert_allclose(score.first_token_logprobs_V, expected_TV[0], atol=1e-5)
        assert score.logprobs_T.dtype == score.first_token_logprobs_V.dtype == np.float32
        assert score.top_ids_TK is not None and score.top_logprobs_TK is not None
        assert (score.top_ids_TK == np.argsort(-expected_TV, axis=1)[:, :9]).all()
        expected_TK = np.take_along_axis(expected_TV, score.top_ids_TK, axis=1)
        np.testing.assert_allclose(score.top_logprobs_TK, expected_TK, atol=1e-5)
        assert (score.top_ids_TK.dtype, score.top_logprobs_TK.dtype) == (np.int32, np.float32)
        assert score.logprobs_T.std() > 0.1 or len(response) == 1  # not a uniform model


def test_the_head_sees_response_positions_only_and_a_bounded_number_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 5 * VOCAB)
    scorer = TorchScorer(save_model("gpt2", tmp_path), batch_tokens=60)
    rows: list[int] = []
    scorer._head.register_forward_hook(lambda _m, _i, logits: rows.append(len(logits)))
    prompts, responses = make_pairs()

    scorer.score(prompts, responses, top_k=VOCAB)

    assert sum(rows) == sum(RESPONSE_LENGTHS)
    assert max(rows) <= 5


def test_the_body_never_gets_more_padded_tokens_than_the_budget(tmp_path: Path):
    scorer = TorchScorer(save_model("llama", tmp_path), batch_tokens=40)
    shapes: list[tuple[int, int]] = []
    scorer._body.register_forward_pre_hook(
        lambda _m, _a, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompts, responses = make_pairs()

    scorer.score(prompts, responses)

    assert max(batch * length for batch, length in shapes) <= 40
    assert sum(batch for batch, _ in shapes) == len(prompts)
    assert len(shapes) < len(prompts)


def test_the_first_token_distribution_is_normalised_and_holds_the_first_score(tmp_path: Path):
    scorer = TorchScorer(save_model("qwen3", tmp_path))
    prompts, responses = make_pairs()
    for response, score in zip(
        responses, scorer.score(prompts, responses, first_token=True), strict=True
    ):
        first_V = score.first_token_logprobs_V
        assert first_V is not None and first_V.shape == (VOCAB,)
        assert np.exp(first_V.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)
        assert first_V[response[0]] == pytest.approx(score.logprobs_T[0], abs=1e-6)


def test_the_same_call_gives_the_same_bits(tmp_path: Path):
    scorer = TorchScorer(save_model("gpt2", tmp_path))
    once, twice = (scorer.score(*make_pairs(), first_token=True) for _ in range(2))
    for left, right in zip(once, twice, strict=True):
        assert left.logprobs_T.tobytes() == right.logprobs_T.tobytes()
        assert left.first_token_logprobs_V is not None and right.first_token_logprobs_V is not None
        assert left.first_token_logprobs_V.tobytes() == right.first_token_logprobs_V.tobytes()


def test_a_model_made_with_dropout_is_scored_without_it(tmp_path: Path):
    folder = save_model("gpt2", tmp_path, resid_pdrop=0.5, embd_pdrop=0.5)
    prompts, responses = make_pairs()
    once, twice = (TorchScorer(folder).score(prompts, responses) for _ in "ab")
    assert [s.logprobs_T.tobytes() for s in once] == [s.logprobs_T.tobytes() for s in twice]


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 32), ("float32", 30)])
def test_forwards_in_bfloat16_have_few_shapes(tmp_path: Path, dtype: DType, width: int):
    scorer = TorchScorer(save_model("gpt2", tmp_path, max_position_embeddings=34), dtype=dtype)
    shapes: list[torch.Size] = []
    scorer._body.register_forward_pre_hook(
        lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True
    )
    ids = np.arange(34, dtype=np.int32)
    ends = [scorer.score([ids[:28]], [ids[28:end]])[0].logprobs_T for end in (31, 34)]
    assert shapes == [(1, width), (1, 33)], "nor is a row wider than the model's context"
    assert [len(end) for end in ends] == [3, 6]


def test_bfloat16_weights_give_float32_scores_near_the_exact_ones(tmp_path: Path):
    folder = save_model("llama", tmp_path)
    pairs = make_pairs()
    exact = TorchScorer(folder).score(*pairs)
    rounded = TorchScorer(folder, dtype="bfloat16").score(*pairs, first_token=True)
    differences = np.concatenate(
        [a.logprobs_T - b.logprobs_T for a, b in zip(exact, rounded, strict=True)]
    )
    assert rounded[0].logprobs_T.dtype == np.float32
    assert 0 < np.abs(differences).mean() < 0.2
    assert rounded[0].first_token_logprobs_V is not None
    total = np.exp(rounded[0].first_token_logprobs_V.astype(np.float64)).sum()
    assert total == pytest.approx(1.0, abs=1e-5)  # the softmax itself was float32


def test_more_likeliest_tokens_than_there_are_is_the_whole_vocabulary(tmp_path: Path):
    scorer = TorchScorer(save_model("gpt2", tmp_path))
    (score,) = scorer.score([np.array([3], np.int32)], [np.array([4, 5], np.int32)], top_k=1000)
    assert score.top_ids_TK is not None and score.top_logprobs_TK is not None
    assert np.sort(score.top_ids_TK, axis=1).tolist() == [list(range(VOCAB))] * 2
    assert (np.diff(score.top_logprobs_TK, axis=1) <= 0).all()


def test_a_tuple_s_arrays_do_not_keep_the_batch_alive(tmp_path: Path):
    scorer = TorchScorer(save_model("gpt2", tmp_path))
    (score, *_) = scorer.score(*make_pairs(), first_token=True, top_k=5)
    assert all(array is not None and array.base is None for array in score)


def test_the_probe_tells_numbers_from_none(tmp_path: Path):
    limits = Limits(owner="teacher", vocab_size=VOCAB, context=64)
    scorer = TorchScorer(save_model("gpt2", tmp_path))
    assert gives_finite(scorer, limits)
    with torch.no_grad():
        scorer._head.weight[50] = torch.nan  # a term of every normaliser
    assert not gives_finite(scorer, limits)


def test_nothing_to_score_is_no_error(tmp_path: Path):
    assert TorchScorer(save_model("gpt2", tmp_path)).score([], [], first_token=True) == []


def test_batches_are_of_similar_length_and_hold_every_index_once():
    assert token_batches([3, 9, 4, 8], 18) == [[1, 3], [2, 0]]
    assert token_batches([5, 5, 5], 10) == [[0, 1], [2]]
    assert token_batches([100, 2], 10) == [[0], [1]]
    assert token_batches([], 10) == []
    # Twice 60 tokens of padding are less than another forward costs, three times are not.
    assert token_batches([100, 40, 40, 40], 10**6) == [[0, 1, 2], [3]]
    assert token_batches([100, *[40] * 5], 10**6, multiple=4) == [[0, 1, 2, 3], [4, 5]]
    assert token_batches([100, *[90] * 5], 10**6, multiple=4) == [[0, 1, 2, 3, 4, 5]]
    assert token_batches([100, *[40] * 5], 250, multiple=4) == [[0, 1], [2, 3, 4, 5]]


def test_an_architecture_that_caps_its_logits_is_refused(tmp_path: Path):
    sizes = {"head_dim": 8, "num_key_value_heads": 2, "intermediate_size": 48}
    folder = save_model("gemma2", tmp_path, final_logit_softcapping=2.0, **sizes)
    with pytest.raises(ConfigError, match=r"changes its logits.*teacher\.scorer=vllm"):
        TorchScorer(folder)
    with pytest.raises(ConfigError, match=r"student .* changes its logits.*another family"):
        TorchScorer(folder, owner="student")


def test_a_truncated_weight_file_is_an_error_that_names_the_folder(tmp_path: Path):
    folder = save_model("gpt2", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DependencyError, match=f"model {folder} cannot be loaded"):
        TorchScorer(folder)
