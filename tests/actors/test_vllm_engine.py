"""The vLLM engine: what it draws, what it scores, what it shares a process with."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from actors.vllm_engine import VllmEngine
from actors.vllm_environment import vllm_environment
from actors.vllm_start import transport
from configs.errors import ConfigError, DataError, DependencyError
from configs.sampling import Sampling

CONTEXT, VOCABULARY, EOS = 200, 61, 2


def make_model(folder: Path, **changes: int) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
    config = GPT2Config(**{**sizes, "vocab_size": VOCABULARY, "eos_token_id": EOS, **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()  # config.json alone names the end
    return model


@cache
def shared() -> tuple[VllmEngine, PreTrainedModel]:
    """One engine for all tests that only draw and score."""
    torch.set_num_threads(1)
    folder = Path(mkdtemp())
    model = make_model(folder)
    return VllmEngine(str(folder), dtype="float32", seed=0, max_model_len=None), model


def make_prompts(count: int, longest: int = 150) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, longest, count)
    return [rng.integers(3, VOCABULARY, length).astype(np.int32) for length in lengths]


def sampling(temperature: float = 1.0, top_p: float = 1.0, max_new_tokens: int = 40) -> Sampling:
    return Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)


@torch.no_grad()
def expected_distributions(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """(L-1, V) by a transformers forward of the whole sequence."""
    tensor = torch.from_numpy(ids.astype(np.int64))
    return model(tensor[None]).logits[0, :-1].float().log_softmax(-1).numpy()


def expected_logprobs(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """(L-1,), the entries of the tokens that are there."""
    return expected_distributions(model, ids)[np.arange(len(ids) - 1), ids[1:]]


def test_the_environment_is_text_and_rounds_the_cache_up():
    environment = vllm_environment(threads=2, kv_cache_gib=0.5)
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_importing_the_engine_loads_neither_torch_nor_vllm():
    program = (
        "import sys, actors.vllm_engine, actors.student\n"
        "print(sorted({'torch', 'vllm', 'transformers'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_weights_travel_through_the_object_store_where_there_is_no_gpu():
    assert transport("nccl") == "nccl"
    assert transport("auto") == ("nccl" if torch.cuda.is_available() else "object_store")


def test_a_folder_without_weights_is_named_before_vllm_starts(tmp_path: Path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(DependencyError, match=f"{tmp_path} holds no weights"):
        VllmEngine(str(tmp_path), dtype="float32", seed=0, max_model_len=None)
    with pytest.raises(DependencyError, match="/nowhere/at/all"):
        VllmEngine("/nowhere/at/all", dtype="float32", seed=0, max_model_len=None)


def test_an_end_outside_the_vocabulary_is_an_error(tmp_path: Path):
    make_model(tmp_path, eos_token_id=50256)
    with pytest.raises(DependencyError, match=r"eos_token_id \[50256\] is outside"):
        VllmEngine(str(tmp_path), dtype="float32", seed=0, max_model_len=None)


@pytest.mark.engine
def test_a_head_size_that_vllm_has_no_kernel_for_is_an_error_at_the_start(tmp_path: Path):
    make_model(tmp_path, n_head=4)
    with pytest.raises(ConfigError, match="heads of size 16"):
        VllmEngine(str(tmp_path), dtype="float32", seed=0, max_model_len=None)


@pytest.mark.engine
@pytest.mark.parametrize("how", [sampling(0.5), sampling(1.0, top_p=0.8), sampling(0.0)])
def test_log_probabilities_are_the_raw_models_however_a_response_is_drawn(how: Sampling):
    engine, model = shared()
    prompts = make_prompts(8)
    for prompt, response in zip(
        prompts, engine.generate(prompts, sampling=how, seeds=range(8)), strict=True
    ):
        expected = expected_logprobs(model, np.concatenate([prompt, response.ids_T]))
        assert response.behaviour_logprobs_T is not None
        np.testing.assert_allclose(
            response.behaviour_logprobs_T, expected[len(prompt) - 1 :], atol=1e-4
        )


@pytest.mark.engine
def test_a_response_stops_with_the_end_token_or_at_its_longest():
    engine, _ = shared()
    prompts = make_prompts(64)
    responses = engine.generate(prompts, sampling=sampling(), seeds=range(64))
    assert {response.finish_reason for response in responses} == {"stop", "length"}
    for response in responses:
        ended = response.finish_reason == "stop"
        assert response.ids_T[:-1].tolist().count(EOS) == 0
        assert (response.ids_T[-1] == EOS) == ended
        assert ended or len(response.ids_T) == 40


@pytest.mark.engine
def test_a_seed_gives_the_same_bits_in_every_batch_cut_and_order():
    engine, _ = shared()
    prompts = make_prompts(48)

    def draw(indices: list[int]) -> dict[int, tuple[list[int], bytes]]:
        responses = engine.generate(
            [prompts[i] for i in indices],
            sampling=sampling(0.8),
            seeds=[2**62 + i for i in indices],
        )
        return {
            i: (r.ids_T.tolist(), r.behaviour_logprobs_T.tobytes())  # type: ignore[union-attr]
            for i, r in zip(indices, responses, strict=True)
        }

    whole = draw(list(range(48)))
    assert len({tuple(ids) for ids, _ in whole.values()}) > 40
    assert draw(list(range(48))[::-1]) == whole
    cut: dict[int, tuple[list[int], bytes]] = {}
    for start in range(0, 48, 7):
        cut |= draw(list(range(start, min(start + 7, 48))))
    assert cut == whole
    other = engine.generate(prompts[:1], sampling=sampling(0.8), seeds=[5])
    assert other[0].ids_T.tolist() != whole[0][0]


@pytest.mark.engine
def test_long_prompts_beyond_one_scheduling_budget_draw_with_seeds():
    """vLLM 0.32 cuts such prompts by default, and then crashes on a CPU's seeded generators."""
    engine, _ = shared()
    prompts = [np.full(150, 5, np.int32)] * 96  # 14 400 tokens
    assert len(engine.generate(prompts, sampling=sampling(max_new_tokens=1), seeds=range(96))) == 96


@pytest.mark.engine
def test_prompt_logprobs_agree_with_a_forward_also_where_the_context_is_full():
    engine, model = shared()
    rng = np.random.default_rng(1)
    for length in (2, 3, 37, CONTEXT):
        ids = rng.integers(0, VOCABULARY, length).astype(np.int32)
        (found,) = engine.prompt_logprobs([ids])
        np.testing.assert_allclose(found, expected_logprobs(model, ids), atol=1e-4)
        assert found.dtype == np.float32


@pytest.mark.engine
@pytest.mark.parametrize("k", [1, 20])
def test_the_likeliest_tokens_agree_with_a_forward_whatever_token_is_there(k: int):
    engine, model = shared()
    rng = np.random.default_rng(2)
    sequences = [rng.integers(0, VOCABULARY, n).astype(np.int32) for n in (2, 37, CONTEXT)]
    for ids, (top_ids, top_logprobs) in zip(
        sequences, engine.prompt_distributions(sequences, k), strict=True
    ):
        expected = expected_distributions(model, ids)
        assert top_ids.shape == (len(ids) - 1, k) and top_ids.dtype == np.int32
        assert (top_ids == np.argsort(-expected, axis=1)[:, :k]).all()
        expected_top = np.take_along_axis(expected, top_ids, axis=1)
        np.testing.assert_allclose(top_logprobs, expected_top, atol=1e-4)
        assert top_logprobs.dtype == np.float32


@pytest.mark.engine
def test_prompts_that_the_model_cannot_take_are_refused_and_the_engine_lives():
    engine, _ = shared()
    how = sampling()
    for ids, message in (
        (np.empty(0, np.int32), "has 0 tokens"),
        (np.full(CONTEXT, 5, np.int32), f"has {CONTEXT} tokens"),
        (np.array([VOCABULARY], np.int32), "vocabulary of 61"),
    ):
        with pytest.raises(DataError, match=message):
            engine.generate([ids], sampling=how, seeds=[0])
    assert engine.generate([], sampling=how, seeds=[]) == []
    assert len(engine.generate(make_prompts(1), sampling=how, seeds=[0])) == 1


NEIGHBOURS = """
import os, sys
import numpy as np, torch, deepspeed
from tests.actors.test_vllm_engine import *

def learner():
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=sys.argv[3])
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2},
              "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}}
    return deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config,
                                dist_init_required=True)[0]

def step(engine):
    ids = torch.arange(10)[None]
    loss = engine(ids, labels=ids).loss
    engine.backward(loss)
    engine.step()
    return float(loss)

def sampler():
    return VllmEngine(sys.argv[1], dtype="float32", seed=0, max_model_len=None)

def draw(engine):
    return engine.generate(make_prompts(4), sampling=sampling(), seeds=range(4))[3].ids_T.tolist()

if sys.argv[2] == "sampler first":
    first = sampler()
    trainer = learner()
else:
    trainer = learner()
    first = sampler()
second = sampler()
losses = [step(trainer)]
responses = [draw(first), draw(second)]
losses.append(step(trainer))
first.close()
losses.append(step(trainer))
responses.append(draw(second))
third = sampler()
responses.append(draw(third))
assert all(r == responses[0] for r in responses), responses
assert losses[2] < losses[1] < losses[0], losses
torch.set_num_threads(1)
assert torch.get_num_threads() == 1
torch.distributed.destroy_process_group()
assert draw(second) == responses[0]
assert draw(sampler()) == responses[0]
print("fine")
"""


@pytest.mark.engine
@pytest.mark.parametrize("order", ["sampler first", "learner first"])
def test_engines_share_a_process_with_each_other_and_with_deepspeed(order: str, tmp_path: Path):
    make_model(tmp_path)
    port = str(20000 + os.getpid() % 10000)
    done = subprocess.run(
        [sys.executable, "-c", NEIGHBOURS, str(tmp_path), order, port],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(Path.cwd())},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("fine\n")


DEATH = """
import sys
from tests.actors.test_vllm_engine import *

engine = VllmEngine(sys.argv[1], dtype="float32", seed=0, max_model_len=None,
                    exit_on_death=sys.argv[2] == "exit")
def fail(*args, **kwargs):
    raise RuntimeError("kernel failed")
engine._llm.llm_engine.step = fail
for _ in range(2):
    try:
        engine.generate(make_prompts(1), sampling=sampling(), seeds=[0])
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.engine
@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [("exit", 1, []), ("stay", 0, ["kernel failed", "closed or has failed"])],
)
def test_a_failed_engine_is_not_used_again_and_ends_the_process_when_asked(
    mode: str, code: int, said: list[str], tmp_path: Path
):
    make_model(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", DEATH, str(tmp_path), mode],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr[-4000:]
    assert all(text in done.stdout for text in said)
    assert "kernel failed" in done.stderr + done.stdout
