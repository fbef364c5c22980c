"""A random teacher of 61 tokens, engines with known answers, and servers made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from actors.teacher import TeacherServer
from configs.objective import Need
from configs.sampling import Sampling
from configs.teacher import AnyTeacherConfig
from configs.wire import Prompt, Response, Trajectory, Uid

VOCAB = 61
CONTEXT = 32
WIDTH = 64

WHITE_BOX: tuple[Need, ...] = ("teacher_response", "student_response", "teacher_logprobs")
BLACK_BOX: tuple[Need, ...] = ("teacher_response", "student_response")


class FakeEngine:
    """``VllmEngine``'s interface; a response is a function of prompt, sampling and seed."""

    def __init__(self) -> None:
        self.generated: list[list[int]] = []
        self.seeds: list[int] = []
        self.closed = self.warm = False

    def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Response]:
        self.generated += [prompt.tolist() for prompt in prompts]
        self.seeds += seeds
        return [self._respond(seed, sampling) for seed in seeds]

    def _respond(self, seed: int, sampling: Sampling) -> Response:
        rng = np.random.default_rng(seed if sampling.temperature else 0)
        count = rng.integers(1, sampling.max_new_tokens + 1)
        return Response(
            ids_T=rng.integers(0, VOCAB, count).astype(np.int32),
            finish_reason="stop",
            behaviour_logprobs_T=np.full(count, -3.0, np.float32),
        )

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [-np.arange(1, len(ids), dtype=np.float32) for ids in sequences]

    def prompt_distributions(
        self, sequences: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The likeliest tokens are 0, 1, 2, ..., each half as likely as the one before."""
        ranks = np.arange(k)
        return [
            (
                np.tile(ranks.astype(np.int32), (len(ids) - 1, 1)),
                np.tile((-(ranks + 1) * np.log(2)).astype(np.float32), (len(ids) - 1, 1)),
            )
            for ids in sequences
        ]

    def warm_up(self) -> None:
        self.warm = True

    def close(self) -> None:
        self.closed = True


class FakeServer(FakeEngine):
    """``OpenAiEngine``'s interface."""

    def __init__(self, fingerprint: str = "5e1f") -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.context = CONTEXT
        self.vocab_size: int | None = VOCAB


def refuse_to_start() -> FakeEngine:
    raise AssertionError("the engine was started")


def save_teacher(folder: Path, seed: int = 0) -> str:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_positions=CONTEXT,
            n_embd=WIDTH,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return str(folder)


def break_token(model: str, token: int) -> None:
    """Make every log-probability after an input of ``token`` a NaN, and no other."""
    broken = GPT2LMHeadModel.from_pretrained(model)
    with torch.no_grad():
        broken.transformer.wte.weight[token] = torch.nan
    broken.lm_head.weight = torch.nn.Parameter(torch.ones(VOCAB, WIDTH))
    broken.config.tie_word_embeddings = False
    broken.save_pretrained(model)


def make_prompt(*ids: int, ordinal: int = 0, epoch: int = 0, sample: int = 0, gold=None) -> Prompt:
    return Prompt(
        uid=Uid(epoch, ordinal, sample),
        row=100 + ordinal,
        prompt_ids_P=np.array(ids, np.int32),
        gold_ids_T=None if gold is None else np.array(gold, np.int32),
    )


def make_trajectory(prompt: Prompt, *ids: int, version: int = 3) -> Trajectory:
    response = Response(
        ids_T=np.array(ids, np.int32),
        finish_reason="length",
        behaviour_logprobs_T=np.full(len(ids), -2.0, np.float32),
    )
    return Trajectory(prompt=prompt, response=response, weight_version=version)


def make_server(
    model: str | None,
    cache_folder: Path | None = None,
    /,
    *,
    engine: FakeEngine | None = None,
    seed: int = 0,
    needs: Sequence[Need] = WHITE_BOX,
    source: Literal["generate", "gold"] = "generate",
    tokenizer: Any = None,
    **config: object,
) -> TeacherServer:
    settings = {
        "type": "model",
        "sampling": Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8),
    }
    return TeacherServer(
        TypeAdapter(AnyTeacherConfig).validate_python(settings | config),
        model=model,
        seed=seed,
        cache_folder=cache_folder,
        needs=frozenset(needs),
        response=source,
        tokenizer=tokenizer,
        start_engine=(lambda: engine) if engine else refuse_to_start,
    )


def logprobs(response: Response | None) -> np.ndarray:
    assert response is not None and response.teacher_logprobs_T is not None
    return response.teacher_logprobs_T


def top(response: Response | None) -> tuple[np.ndarray, np.ndarray]:
    assert response is not None
    assert response.teacher_top_ids_TK is not None
    assert response.teacher_top_logprobs_TK is not None
    return response.teacher_top_ids_TK, response.teacher_top_logprobs_TK


def plain_distribution(model: str, prompt: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return log p(. | x, y_<i), (T, V), by one forward of one sequence."""
    ids = torch.from_numpy(np.concatenate([prompt, response])).long()
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model).eval()(ids[None]).logits[0]
    start = len(prompt) - 1
    return torch.log_softmax(logits, dim=-1).numpy()[start : start + len(response)]


def plain_logprobs(model: str, prompt: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return log p of the response's tokens, (T,)."""
    return plain_distribution(model, prompt, response)[np.arange(len(response)), response]


PROMPTS = [make_prompt(5, 6, 7, ordinal=0), make_prompt(9, ordinal=1), make_prompt(4, 4, ordinal=2)]
