"""The engine of a served teacher against a real vLLM server, a torch forward and transformers."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from actors.openai_engine import OpenAiEngine
from actors.scoring import TorchScorer
from actors.teacher import TeacherServer
from configs.errors import ConfigError, DataError, DependencyError
from configs.objective import Need
from configs.packing import unpack
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig
from tests.actors.openai_stub import greedy, small_tokenizer, teacher
from tests.actors.small_teacher import make_prompt, make_trajectory
from tests.actors.vllm_server import vllm_server

CONTEXT, MAX_LOGPROBS, EOS = 64, 12, 0
VOCABULARY = 300

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@cache
def folder() -> Path:
    """A random GPT-2 whose next token is far from certain, with the small tokenizer."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    path = Path(mkdtemp())
    sizes: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
    config = GPT2Config(vocab_size=VOCABULARY, bos_token_id=EOS, eos_token_id=EOS, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    # The server's own defaults must not reach a request.
    model.generation_config.update(top_k=2, temperature=0.3, repetition_penalty=5.0)
    model.generation_config.do_sample = True
    model.save_pretrained(path)
    small_tokenizer().save_pretrained(path)
    return path


@cache
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(folder()).eval()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    options = ("--served-model-name", "big", "--max-logprobs", str(MAX_LOGPROBS))
    with vllm_server(folder(), *options) as base_url:
        yield base_url


@pytest.fixture
def engine(url: str) -> Iterator[OpenAiEngine]:
    engine = teacher(url, tokens="ids", max_logprobs=MAX_LOGPROBS)
    yield engine
    engine.close()


def sequences(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths]


@torch.no_grad()
def expected(ids_L: np.ndarray) -> np.ndarray:
    """(L-1, V) log-probabilities by a transformers forward."""
    tensor = torch.from_numpy(ids_L.astype(np.int64))
    return model()(tensor[None]).logits[0, :-1].log_softmax(-1).numpy()


def test_log_probabilities_agree_with_the_torch_scorer_also_where_the_context_is_full(
    engine: OpenAiEngine,
):
    assert engine.context == CONTEXT
    chosen = sequences(2, 3, 37, CONTEXT - 1, CONTEXT)
    chosen.append(np.append(chosen[2], EOS).astype(np.int32))
    found = engine.prompt_logprobs(chosen)
    scores = TorchScorer(str(folder())).score(
        [ids[:1] for ids in chosen], [ids[1:] for ids in chosen], first_token=False
    )
    for values, score in zip(found, scores, strict=True):
        np.testing.assert_allclose(values, score.logprobs_T, atol=1e-4)
        assert values.dtype == np.float32


@pytest.mark.parametrize("k", [1, MAX_LOGPROBS])
def test_distributions_agree_with_a_forward_also_where_the_context_is_full(
    engine: OpenAiEngine, k: int
):
    chosen = sequences(2, 21, CONTEXT)
    for ids_L, (ids, logprobs) in zip(chosen, engine.prompt_distributions(chosen, k), strict=True):
        assert ids.shape == logprobs.shape == (len(ids_L) - 1, k)
        whole = expected(ids_L)
        np.testing.assert_allclose(logprobs, -np.sort(-whole, axis=1)[:, :k], atol=1e-4)
        np.testing.assert_allclose(logprobs, np.take_along_axis(whole, ids, 1), atol=1e-4)


def test_a_greedy_response_is_the_one_of_transformers(engine: OpenAiEngine):
    prompts = sequences(4, 9, 30)
    for prompt, response in zip(
        prompts, engine.generate(prompts, sampling=greedy(20), seeds=[0, 1, 2]), strict=True
    ):
        tensor = torch.from_numpy(prompt.astype(np.int64))[None]
        settings = {"do_sample": False, "max_new_tokens": 20, "pad_token_id": EOS}
        plain = {"top_k": None, "temperature": None, "repetition_penalty": 1.0}
        whole = model().generate(
            tensor, attention_mask=torch.ones_like(tensor), **settings, **plain
        )
        assert response.ids_T.tolist() == whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.3])
def test_drawn_tokens_carry_the_raw_models_log_probabilities_and_end_as_they_should(
    engine: OpenAiEngine, temperature: float
):
    prompts = sequences(*[5] * 24)
    how = Sampling(temperature=temperature, top_p=0.95, max_new_tokens=CONTEXT)
    responses = engine.generate(prompts, sampling=how, seeds=range(24))
    if temperature > 1:
        assert {response.finish_reason for response in responses} == {"stop", "length"}
    for prompt, response in zip(prompts, responses, strict=True):
        whole = expected(np.concatenate([prompt, response.ids_T]))[len(prompt) - 1 :]
        own = np.take_along_axis(whole, response.ids_T[:, None].astype(np.int64), 1)[:, 0]
        assert response.behaviour_logprobs_T is not None
        np.testing.assert_allclose(response.behaviour_logprobs_T, own, atol=1e-4)
        assert (response.ids_T[-1] == EOS) == (response.finish_reason == "stop")
        assert response.finish_reason == "stop" or len(response.ids_T) == CONTEXT - 5


def test_a_seed_gives_the_same_response_and_another_seed_another(engine: OpenAiEngine):
    (prompt,) = sequences(6)
    how = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=20)
    seeds = [2**62, 2**62 + 1, 2**62, 3]
    drawn = engine.generate([prompt] * 4, sampling=how, seeds=seeds)
    first, second, again, last = (response.ids_T.tolist() for response in drawn)
    assert first == again
    assert len({tuple(first), tuple(second), tuple(last)}) == 3


def test_what_the_server_refuses_is_said_in_a_sentence(url: str, engine: OpenAiEngine):
    (ids,) = sequences(5)
    wanting = teacher(url, tokens="ids", max_logprobs=100)
    with pytest.raises(ConfigError, match=r"greater than max allowed: 12.*larger --max-logprobs"):
        wanting.prompt_distributions([ids], MAX_LOGPROBS + 1)
    with pytest.raises(ConfigError, match=r"no model 'small'.*teacher\.model"):
        teacher(url, tokens="ids", model="small")
    with pytest.raises(DataError, match="too long for the model's context"):
        engine.prompt_logprobs(sequences(CONTEXT + 2))
    with pytest.raises(ConfigError, match=r"HTTP 400: .*chat template"):
        teacher(url, api="chat")


def test_text_travels_to_the_same_server(url: str):
    engine = teacher(url)
    text = "the quick brown fox"
    ids = np.array(small_tokenizer()(text)["input_ids"], np.int32)
    how = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=10)
    one, same, other = engine.generate([ids] * 3, sampling=how, seeds=[1, 1, 2])
    assert one.ids_T.tolist() == same.ids_T.tolist() != other.ids_T.tolist()
    assert one.behaviour_logprobs_T is None
    assert 1 <= len(one.ids_T) <= 10


def test_the_fingerprint_is_the_same_from_one_start_to_the_next(url: str):
    for tokens in ("ids", "text"):
        found = teacher(url, tokens=tokens).fingerprint
        assert teacher(url, tokens=tokens, fingerprint=found).fingerprint == found
        with pytest.raises(DependencyError, match=f"{found}, and teacher.fingerprint is 0-0"):
            teacher(url, tokens=tokens, fingerprint="0-0")


def served_teacher(url: str, cache: Path, *needs: Need, **settings: Any) -> TeacherServer:
    asked = {"type": "openai", "base_url": url, "model": "big", "key_env": None, **settings}
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12)
    return TeacherServer(
        OpenAiTeacherConfig.model_validate(asked | {"sampling": sampling}),
        model=None,
        seed=0,
        cache_folder=cache,
        needs=frozenset(needs),
        response="generate",
        tokenizer=small_tokenizer(),
    )


def test_a_teacher_server_responds_and_judges_by_it(url: str, tmp_path: Path):
    needs: tuple[Need, ...] = ("teacher_response", "teacher_logprobs", "teacher_distribution")
    settings = {"tokens": "ids", "max_logprobs": MAX_LOGPROBS, "distribution_top_k": 5}
    chosen = [make_prompt(9, 8, 7), make_prompt(40, 41, ordinal=1)]
    trajectories = [
        make_trajectory(prompt, 3, EOS, 200, ordinal) for ordinal, prompt in enumerate(chosen, 20)
    ]
    server = served_teacher(url, tmp_path, *needs, **settings)
    server.warm_up()
    answers = server.respond(chosen)
    pairs = unpack(server.judge(chosen, answers, trajectories).batch)
    for prompt, pair in zip(chosen, pairs, strict=True):
        for response in (pair.teacher_response, pair.student_response):
            assert response is not None and response.teacher_logprobs_T is not None
            assert response.teacher_top_ids_TK is not None
            whole = expected(np.concatenate([prompt.prompt_ids_P, response.ids_T]))
            whole = whole[len(prompt.prompt_ids_P) - 1 :]
            own = whole[np.arange(len(response.ids_T)), response.ids_T]
            np.testing.assert_allclose(response.teacher_logprobs_T, own, atol=1e-4)
            likeliest = np.argsort(-whole, axis=1)[:, :5]
            assert response.teacher_top_ids_TK.tolist() == likeliest.tolist()
    server.close()
    again = served_teacher(url, tmp_path, *needs, **settings)
    assert [r.ids_T.tolist() for r in again.respond(chosen)] == [r.ids_T.tolist() for r in answers]
    assert again.statistics()["cache_hits"] == 2
    again.close()


def test_a_teacher_server_of_text_responds_and_scores_nothing(url: str, tmp_path: Path):
    server = served_teacher(url, tmp_path, "teacher_response")
    server.warm_up()
    prompt = make_prompt(*small_tokenizer()("the quick brown")["input_ids"])
    (answer,) = server.respond([prompt])
    assert answer.teacher_logprobs_T is None and 1 <= len(answer.ids_T) <= 12
    server.close()
