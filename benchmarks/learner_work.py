"""Models and batches for the learner's figures: random weights and tokens, natural lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from configs.learner import LearnerConfig
from configs.objective import DpkdConfig
from configs.run import RunConfig
from configs.student import StudentConfig
from configs.teacher import TeacherConfig
from configs.wire import PreferenceTuple, Prompt, Response, Uid
from learner.worker import LearnerWorker


def save_student(
    folder: Path, *, vocabulary: int, hidden: int, layers: int, context: int = 1024
) -> int:
    """Write a GPT-2 of random weights; returns its number of parameters."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=hidden,
        n_layer=layers,
        n_head=hidden // 64,
        n_positions=context,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
    )
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def tuples(
    count: int, *, vocabulary: int, prompt: int, response: int, spread: float, seed: int = 0
) -> list[PreferenceTuple]:
    """Return pairs whose mean lengths are ``prompt`` and ``response`` tokens.

    ``spread`` is the coefficient of variation of the lengths, which are gamma-distributed, as
    lengths of answers roughly are; 0: all alike.
    """
    generator = np.random.default_rng(seed)

    def ids(mean: int) -> np.ndarray:
        length = mean
        if spread:
            shape = 1 / spread**2
            length = max(2, round(generator.gamma(shape, mean / shape)))
        return generator.integers(1, vocabulary, length, dtype=np.int32)

    def answer() -> Response:
        tokens = ids(response)
        logprobs = generator.uniform(-9, -7, len(tokens)).astype(np.float32)
        return Response(
            ids_T=tokens,
            finish_reason="stop",
            teacher_logprobs_T=logprobs,
            behaviour_logprobs_T=logprobs,
        )

    return [
        PreferenceTuple(
            prompt=Prompt(uid=Uid(0, ordinal, 0), row=ordinal, prompt_ids_P=ids(prompt)),
            teacher_response=answer(),
            student_response=answer(),
            weight_version=0,
        )
        for ordinal in range(count)
    ]


def started_worker(model: Path, **learner: Any) -> LearnerWorker:
    """Return one rank of the real learner, DeepSpeed and all, that holds ``model``."""
    config = RunConfig(
        student=StudentConfig(model=str(model)),
        teacher=TeacherConfig(model=str(model)),
        learner=LearnerConfig(learning_rate=1e-5, warmup_steps=0, threads=1, **learner),
        objective=DpkdConfig(),
    )
    worker = LearnerWorker(config, model=str(model), rank=0, world_size=1)
    worker.start(*worker.rendezvous())
    return worker
