"""Small models made from a random initialisation, in Hugging Face layout."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from configs.models import MakeModel


def make_model(
    make: MakeModel, *, vocab_size: int, eos_token_id: int, seed: int, folder: Path
) -> None:
    """Make a randomly initialised causal language model and save it to ``folder``.

    float32, no dropout, embeddings tied as the family's small models have them (Llama's are
    not). The same arguments give the same bytes. ``eos_token_id`` also begins a sequence and,
    in generation, pads.
    """
    config = model_config(make, vocab_size=vocab_size, eos_token_id=eos_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
        do_sample=True,
    )
    model.save_pretrained(folder)


def model_config(make: MakeModel, *, vocab_size: int, eos_token_id: int) -> PretrainedConfig:
    """Return the family's configuration for the asked sizes."""
    if make.family == "gpt2":
        return _gpt2(make, vocab_size, eos_token_id)
    if make.family == "opt":
        return _opt(make, vocab_size, eos_token_id)
    return _llama_like(make, vocab_size, eos_token_id)


def _gpt2(make: MakeModel, vocab_size: int, eos_token_id: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=make.context,
        n_embd=make.hidden_size,
        n_layer=make.layers,
        n_head=make.heads,
        initializer_range=make.initializer_range,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=None,
        tie_word_embeddings=True,
    )


def _opt(make: MakeModel, vocab_size: int, eos_token_id: int) -> OPTConfig:
    return OPTConfig(
        vocab_size=vocab_size,
        max_position_embeddings=make.context,
        hidden_size=make.hidden_size,
        word_embed_proj_dim=make.hidden_size,
        ffn_dim=4 * make.hidden_size,
        num_hidden_layers=make.layers,
        num_attention_heads=make.heads,
        init_std=make.initializer_range,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        # A padding id would freeze that token's embedding, and it is the end of every response.
        pad_token_id=None,
        tie_word_embeddings=True,
    )


def _llama_like(make: MakeModel, vocab_size: int, eos_token_id: int) -> PretrainedConfig:
    family = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[make.family]
    # Grouped-query attention with two query heads a group, where the heads are even.
    groups = make.heads // 2 if make.heads % 2 == 0 else make.heads
    return family(
        vocab_size=vocab_size,
        max_position_embeddings=make.context,
        hidden_size=make.hidden_size,
        # SwiGLU has three matrices where others have two, so two thirds of their width.
        intermediate_size=-(-make.hidden_size * 8 // 3 // 32) * 32,
        num_hidden_layers=make.layers,
        num_attention_heads=make.heads,
        num_key_value_heads=groups,
        initializer_range=make.initializer_range,
        head_dim=make.hidden_size // make.heads,
        attention_dropout=0.0,
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=None,
        tie_word_embeddings=make.family != "llama",
    )
