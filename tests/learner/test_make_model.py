"""A made model is an ordinary Hugging Face folder, and the same one from the same seed."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from configs.models import Family, MakeModel
from learner.make_model import make_model

FAMILIES = get_args(Family)
TIED = {"gpt2": True, "opt": True, "llama": False, "qwen2": True, "qwen3": True}


def make(folder: Path, family: str, *, seed: int = 0) -> Path:
    sizes = MakeModel.model_validate(
        {"family": family, "hidden_size": 64, "layers": 2, "heads": 2, "context": 48}
    )
    make_model(sizes, vocab_size=301, eos_token_id=5, seed=seed, folder=folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_back_with_the_asked_sizes(tmp_path: Path, family: str) -> None:
    torch.set_num_threads(1)
    folder = make(tmp_path, family)
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.vocab_size) == (family, 301)
    assert (config.hidden_size, config.num_hidden_layers) == (64, 2)
    assert (config.max_position_embeddings, config.tie_word_embeddings) == (48, TIED[family])
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    ids = torch.arange(48)[None]
    logits = model(ids).logits
    assert logits.shape == (1, 48, 301)
    assert torch.isfinite(logits).all()
    head = model.get_output_embeddings()
    assert head is not None
    assert (head.weight is model.get_input_embeddings().weight) == TIED[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_has_no_dropout_and_the_end_token_learns(tmp_path: Path, family: str) -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(make(tmp_path, family)).train()
    ids = torch.tensor([[5, 7, 9]])
    first, second = model(ids).logits, model(ids).logits
    assert torch.equal(first, second)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    assert embedding.padding_idx is None
    assert embedding.weight[5].abs().sum() > 0


def test_the_end_token_ends_and_pads_generation(tmp_path: Path) -> None:
    generation = GenerationConfig.from_pretrained(make(tmp_path, "gpt2"))
    assert (generation.eos_token_id, generation.pad_token_id) == (5, 5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["eos_token_id"] == 5
    assert config["dtype"] == "float32"


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_global_one_alone(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(tmp_path / name, "llama", seed=seed)
    assert torch.equal(torch.rand(3), expected)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json"} <= files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ac"]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_initial_weights_have_the_asked_spread(tmp_path: Path, family: str) -> None:
    sizes = MakeModel.model_validate(
        {"family": family, "hidden_size": 64, "heads": 2, "initializer_range": 0.1}
    )
    make_model(sizes, vocab_size=2000, eos_token_id=5, seed=0, folder=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    spread = torch.std(model.get_input_embeddings().weight).item()  # pyright: ignore
    assert spread == pytest.approx(0.1, rel=0.05)
