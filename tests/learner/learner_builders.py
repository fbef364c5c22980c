"""Small models and batches for the learner's tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from configs.learner import LearnerConfig
from configs.objective import DpkdConfig, ObjectiveConfig
from configs.run import RunConfig
from configs.student import StudentConfig
from configs.teacher import TeacherConfig
from configs.wire import PreferenceTuple, Prompt, Response, Uid

VOCABULARY = 512
FAMILIES = ("gpt2", "opt", "llama", "qwen2", "qwen3")


def small_model(family: str = "gpt2", *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Return a random model of two narrow layers, in evaluation mode."""
    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1}
    if family == "gpt2":
        shape |= {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96}
    elif family == "opt":
        shape |= {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
            "max_position_embeddings": 96, "word_embed_proj_dim": 32, "pad_token_id": 1,
        }  # fmt: skip
    else:
        shape |= {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 96,
            "tie_word_embeddings": family == "qwen2",
        }  # fmt: skip
    if family == "qwen3":
        shape["head_dim"] = 16
    config = CONFIG_MAPPING[family](**(shape | overrides))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual initialisation is nearly uniform in q
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def saved_model(folder: Path, family: str = "gpt2") -> str:
    """Write ``small_model`` into ``folder`` and return its path."""
    small_model(family).save_pretrained(folder)
    return str(folder)


def response(generator: np.random.Generator, length: int, *, drawn: bool) -> Response:
    """Return a scored response of random tokens."""
    logprobs = generator.uniform(-8, -4, length).astype(np.float32)
    return Response(
        ids_T=generator.integers(2, VOCABULARY, length, dtype=np.int32),
        finish_reason="stop",
        teacher_logprobs_T=logprobs,
        behaviour_logprobs_T=logprobs - np.float32(0.25) if drawn else None,
    )


def judged_response(
    generator: np.random.Generator, length: int, *, drawn: bool, top_k: int
) -> Response:
    """Return a response of which everything is known that any objective asks."""
    logits_TV = generator.normal(size=(length, VOCABULARY)) * 2
    logprobs_TV = (logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))).astype(np.float32)
    ids_T = generator.integers(2, VOCABULARY, length, dtype=np.int32)
    top_ids_TK = np.argsort(-logprobs_TV, axis=-1)[:, :top_k].astype(np.int32)
    near_T = generator.uniform(-7, -5, (2, length)).astype(np.float32)
    return Response(
        ids_T=ids_T,
        finish_reason="stop",
        teacher_logprobs_T=logprobs_TV[np.arange(length), ids_T],
        reference_logprobs_T=near_T[0],
        behaviour_logprobs_T=near_T[1] if drawn else None,
        teacher_top_ids_TK=top_ids_TK,
        teacher_top_logprobs_TK=np.take_along_axis(logprobs_TV, top_ids_TK, axis=-1),
        score=float(generator.random()) if drawn else 1.0,
    )


def tuples_for(
    objective: ObjectiveConfig, count: int, *, seed: int = 0, top_k: int = 6, corpus: bool = False
) -> list[PreferenceTuple]:
    """Return tuples that hold the sequences which ``objective`` learns from, fully judged."""
    generator = np.random.default_rng(seed)
    tuples = []
    for item in preference_tuples(count, seed=seed, corpus=corpus):
        of_pair = objective.sequences == "pair"
        drawn = of_pair or bool(generator.random() < objective.student_share)
        lengths = generator.integers(1, 12, 2)
        y_t, y_s = (
            judged_response(generator, int(length), drawn=number == 1, top_k=top_k)
            for number, length in enumerate(lengths)
        )
        tuples.append(
            replace(
                item,
                teacher_response=y_t if of_pair or not drawn else None,
                student_response=y_s if drawn else None,
                weight_version=0 if drawn else None,
            )
        )
    return tuples


def preference_tuples(count: int, *, seed: int = 0, corpus: bool = False) -> list[PreferenceTuple]:
    """Return pairs of assorted lengths, with gold responses and teacher distributions."""
    generator = np.random.default_rng(seed)
    tuples = []
    for ordinal in range(count):
        first_V = generator.normal(size=VOCABULARY).astype(np.float32)
        first_V -= np.log(np.exp(first_V).sum())
        prompt = Prompt(
            uid=Uid(0, ordinal, 0),
            row=ordinal,
            prompt_ids_P=_ids(generator, 3, 20),
            gold_ids_T=_ids(generator, 2, 12),
            corpus_ids_C=_ids(generator, 5, 30) if corpus else None,
        )
        tuples.append(
            PreferenceTuple(
                prompt=prompt,
                teacher_response=response(generator, int(generator.integers(2, 16)), drawn=False),
                student_response=response(generator, int(generator.integers(1, 24)), drawn=True),
                weight_version=0,
                teacher_first_token_logprobs_V=first_V,
            )
        )
    return tuples


def run_config(
    learner: LearnerConfig | None = None, objective: ObjectiveConfig | None = None
) -> RunConfig:
    """Return a run whose models are named, not made: the learner is told what to load."""
    return RunConfig(
        student=StudentConfig(model="student"),
        teacher=TeacherConfig(model="teacher"),
        learner=learner or LearnerConfig(batch_size=8, threads=1),
        objective=objective or DpkdConfig(lm_weight=0.5),
    )


def _ids(generator: np.random.Generator, low: int, high: int) -> np.ndarray:
    return generator.integers(2, VOCABULARY, int(generator.integers(low, high)), dtype=np.int32)
