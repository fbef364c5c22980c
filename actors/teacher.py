"""The teacher p: its responses y_t, once per prompt, and log p of anything it is shown.

    prompts ──respond──► y_t  (cache, else vLLM or the data's own response)  + log p(y_t | x)
    trajectories ──score──► (x, y_t, y_s, log-probabilities), what the learner consumes

y_t depends on the run's seed and the prompt's token ids alone, so the same prompt has the same
y_t in every epoch, for every student sample, and in every batch it comes in.
"""

import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import AutoConfig

from actors.model_folder import model_fingerprint, model_folder
from actors.scoring import Scorer, TorchScorer, VllmScorer
from actors.teacher_cache import TeacherCache, response_key
from actors.vllm_engine import VllmEngine
from configs.errors import DataError, DependencyError, NonFiniteError
from configs.sampling import Sampling
from configs.teacher import TeacherConfig
from configs.wire import PreferenceTuple, Prompt, Response, Trajectory


class Engine(Protocol):
    """What the teacher uses of ``VllmEngine``."""

    def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Response]:
        """Draw one response for each prompt's ids; ``behaviour_logprobs_T`` is set."""
        ...

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (L-1,) float32 for each (L,) int32 sequence."""
        ...

    def warm_up(self) -> None:
        """Generate once."""
        ...

    def close(self) -> None:
        """End the engine."""
        ...


class TeacherServer:
    """Answers prompts and scores responses. Engines start when first needed, or never."""

    def __init__(
        self,
        config: TeacherConfig,
        *,
        model: str,
        seed: int,
        cache_folder: Path | None,
        needs_logprobs: bool = True,
        exit_on_engine_death: bool = False,
        start_engine: Callable[[], Engine] | None = None,
    ) -> None:
        """Find the model's files and open the cache; load no weights yet.

        ``model`` is a folder or hub name, ``seed`` the run's. ``cache_folder`` None, or
        ``config.cache`` false, keeps responses for this run only. ``needs_logprobs`` false is
        the black-box teacher of text-only objectives: nothing is ever scored.
        With ``exit_on_engine_death`` the process ends when vLLM fails, so that the run
        hears of it. ``start_engine`` None starts vLLM. Raises DependencyError when the model
        is incomplete or the cache cannot be written.
        """
        self._config = config
        self._seed = seed
        self._needs_logprobs = needs_logprobs
        self._folder = model_folder(model, revision=config.revision)
        self._vocab_size, self._context = _limits(self._folder, config)
        self._cache = TeacherCache(self._cache_path(cache_folder))
        self._exit_on_engine_death = exit_on_engine_death
        self._start_engine = start_engine or self._start_vllm
        self._engine: Engine | None = None
        self._scorer: Scorer | None = None
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()  # neither vLLM nor a count is safe between threads

    def warm_up(self) -> None:
        """Start now whatever an uncached prompt would start, so that no batch waits for it."""
        with self._lock:
            if self._config.response == "generate":
                self._running_engine().warm_up()
            if self._needs_logprobs:
                self._running_scorer()

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        """Return y_t for each prompt, with ``teacher_logprobs_T`` unless the box is black.

        Prompts of the same ids share one y_t. Raises DataError for a prompt that has no gold
        response (``config.response == "gold"``) or does not fit the teacher, and
        NonFiniteError, naming the uid, for a log-probability that is none; neither is cached.
        """
        with self._lock:
            self._check_fit(prompts, [None] * len(prompts))
            if self._config.response == "gold" and not self._needs_logprobs:
                return [_gold(prompt) for prompt in prompts]
            keys = [self._key(prompt) for prompt in prompts]
            first_use: dict[bytes, Prompt] = {}
            for key, prompt in zip(keys, prompts, strict=True):
                first_use.setdefault(key, prompt)
            known = self._cache.get(keys)
            drawn = self._draw({k: p for k, p in first_use.items() if k not in known})
            known |= drawn
            scored = self._score_missing(known, first_use)
            known |= scored
            self._cache.put(drawn | scored)
            made = drawn.keys() | scored.keys()
            self._counts["cache_misses"] += len(made)
            self._counts["cache_hits"] += len(keys) - len(made)
            return [known[key] for key in keys]

    def score(
        self, trajectories: list[Trajectory], responses: list[Response]
    ) -> list[PreferenceTuple]:
        """Join each trajectory with its prompt's y_t, and set log p(y_s).

        ``responses[i]`` is ``respond``'s answer to ``trajectories[i].prompt``. With
        ``first_token_distribution`` the same forward gives log p(. | x). Raises DataError and
        NonFiniteError as ``respond`` does.
        """
        prompts = [trajectory.prompt for trajectory in trajectories]
        students = [trajectory.response for trajectory in trajectories]
        firsts: list[np.ndarray | None] = [None] * len(trajectories)
        if self._needs_logprobs:
            students, firsts = self.score_responses(
                prompts, students, first_token=self._config.first_token_distribution
            )
        return [
            PreferenceTuple(
                prompt=trajectory.prompt,
                teacher_response=teacher,
                student_response=student,
                weight_version=trajectory.weight_version,
                teacher_first_token_logprobs_V=first,
            )
            for trajectory, teacher, student, first in zip(
                trajectories, responses, students, firsts, strict=True
            )
        ]

    def score_responses(
        self, prompts: list[Prompt], responses: list[Response], *, first_token: bool = False
    ) -> tuple[list[Response], list[np.ndarray | None]]:
        """Return the responses with ``teacher_logprobs_T`` set, and log p(. | x) if asked.

        The second list holds (V,) float32 arrays, or None for each. Evaluation uses this
        alone, for the reverse KL of samples that have no y_t.
        """
        with self._lock:
            self._check_fit(prompts, responses)
            scores = self._running_scorer().score(
                [prompt.prompt_ids_P for prompt in prompts],
                [response.ids_T for response in responses],
                first_token=first_token,
            )
            self._counts["scored_tokens"] += sum(len(response.ids_T) for response in responses)
        for prompt, score in zip(prompts, scores, strict=True):
            _check_finite(prompt, score.logprobs_T, score.first_token_logprobs_V)
        scored = [
            replace(response, teacher_logprobs_T=score.logprobs_T)
            for response, score in zip(responses, scores, strict=True)
        ]
        return scored, [score.first_token_logprobs_V for score in scores]

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[Response]:
        """Draw a response for each prompt for evaluation: seeded by uid, never cached.

        ``teacher_logprobs_T`` is the engine's own raw log-probability.
        """
        with self._lock:
            self._check_fit(prompts, [None] * len(prompts))
            seeds = [_seed("generate", self._seed, list(prompt.uid)) for prompt in prompts]
            return self._generate(prompts, sampling, seeds)

    def statistics(self) -> dict[str, float]:
        """Return the counts since start.

        ``cache_hits`` and ``cache_misses`` count prompts; ``generated_tokens`` and
        ``scored_tokens`` response tokens; ``cache_corrupt`` damaged records or files that
        were made again; ``cache_failures`` reads and writes that the disk refused.
        """
        names = ("cache_hits", "cache_misses", "generated_tokens", "scored_tokens")
        counts = {name: float(self._counts[name]) for name in names}
        return counts | {
            "cache_corrupt": float(self._cache.corrupt),
            "cache_failures": float(self._cache.failures),
        }

    def close(self) -> None:
        """End the engine, free the scorer and close the cache."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
            self._engine = self._scorer = None
            self._cache.close()

    def _draw(self, prompts: dict[bytes, Prompt]) -> dict[bytes, Response]:
        """Make y_t, unscored, for each key's prompt."""
        if self._config.response == "gold":
            return {key: _gold(prompt) for key, prompt in prompts.items()}
        seeds = [
            _seed("respond", self._seed, prompt.prompt_ids_P.tolist())
            for prompt in prompts.values()
        ]
        drawn = self._generate(list(prompts.values()), self._config.sampling, seeds)
        # The engine's log-probabilities are dropped: y_t and y_s are to be scored alike.
        return {
            key: replace(response, teacher_logprobs_T=None)
            for key, response in zip(prompts, drawn, strict=True)
        }

    def _score_missing(
        self, known: dict[bytes, Response], first_use: dict[bytes, Prompt]
    ) -> dict[bytes, Response]:
        """Score what is new, and what a black-box run had cached without log-probabilities."""
        if not self._needs_logprobs:
            return {}
        keys = [key for key in first_use if known[key].teacher_logprobs_T is None]
        scored, _ = self.score_responses([first_use[k] for k in keys], [known[k] for k in keys])
        return dict(zip(keys, scored, strict=True))

    def _generate(
        self, prompts: list[Prompt], sampling: Sampling, seeds: list[int]
    ) -> list[Response]:
        if not prompts:
            return []
        responses = self._running_engine().generate(
            [prompt.prompt_ids_P for prompt in prompts], sampling=sampling, seeds=seeds
        )
        self._counts["generated_tokens"] += sum(len(response.ids_T) for response in responses)
        return [
            replace(
                response,
                behaviour_logprobs_T=None,
                teacher_logprobs_T=response.behaviour_logprobs_T,
            )
            for response in responses
        ]

    def _running_engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._start_engine()
        return self._engine

    def _running_scorer(self) -> Scorer:
        if self._scorer is None and self._config.scorer == "vllm":
            self._scorer = VllmScorer(self._running_engine())
        elif self._scorer is None:
            self._scorer = TorchScorer(
                str(self._folder),
                dtype=self._config.dtype,
                trust_remote_code=self._config.trust_remote_code,
                batch_tokens=self._config.score_batch_tokens,
            )
        return self._scorer

    def _start_vllm(self) -> Engine:
        return VllmEngine(
            str(self._folder),
            dtype=self._config.dtype,
            seed=self._seed,
            max_model_len=self._config.max_model_len,
            trust_remote_code=self._config.trust_remote_code,
            gpu_memory_utilization=self._config.gpu_memory_utilization,
            tensor_parallel=self._config.tensor_parallel,
            exit_on_death=self._exit_on_engine_death,
        )

    def _cache_path(self, folder: Path | None) -> Path | None:
        if folder is None or not self._config.cache:
            return None
        fingerprint = model_fingerprint(self._folder, dtype=self._config.dtype)
        return folder.expanduser() / f"teacher-{fingerprint}.sqlite3"

    def _key(self, prompt: Prompt) -> bytes:
        config = self._config
        if config.response == "gold":
            recipe = {"response": "gold", "scorer": config.scorer}
            return response_key(recipe, prompt.prompt_ids_P, _gold(prompt).ids_T)
        recipe = {
            "response": "generate",
            "scorer": config.scorer,
            "sampling": config.sampling.model_dump(),
            "context": self._context,
            # A greedy response is the same for every seed, so runs may share it.
            "seed": self._seed if config.sampling.temperature > 0 else None,
        }
        return response_key(recipe, prompt.prompt_ids_P)

    def _check_fit(self, prompts: Sequence[Prompt], responses: Sequence[Response | None]) -> None:
        """Raise DataError where ids are not the teacher's or a sequence exceeds its context."""
        for prompt, response in zip(prompts, responses, strict=True):
            ids = prompt.prompt_ids_P
            if response is not None:
                ids = np.concatenate([ids, response.ids_T])
            if ids.min() < 0 or ids.max() >= self._vocab_size:
                raise DataError(
                    f"prompt {prompt.uid} (row {prompt.row}) holds token id {ids.max()}, outside "
                    f"the teacher's vocabulary of {self._vocab_size}; teacher and student must "
                    "share a tokenizer"
                )
            spare = 1 if response is None else 0  # room for at least one token to generate
            if len(ids) + spare > self._context:
                raise DataError(
                    f"prompt {prompt.uid} (row {prompt.row}) makes {len(ids)} tokens, too long "
                    f"for the teacher's context of {self._context}; lower data.max_prompt_tokens "
                    "or student.sampling.max_new_tokens"
                )


def _gold(prompt: Prompt) -> Response:
    if prompt.gold_ids_T is None:
        raise DataError(
            f"row {prompt.row} has no gold response, which teacher.response=gold needs; "
            "mend the row, or set teacher.response=generate"
        )
    return Response(ids_T=prompt.gold_ids_T, finish_reason="stop")


def _seed(use: str, run_seed: int, ids: list[int]) -> int:
    """Return a 63-bit seed that is a function of its arguments alone."""
    text = json.dumps([use, run_seed, ids]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def _check_finite(prompt: Prompt, *values: np.ndarray | None) -> None:
    if not all(np.isfinite(array).all() for array in values if array is not None):
        raise NonFiniteError(
            f"the teacher's log-probabilities for {prompt.uid} (row {prompt.row}) are not finite; "
            "check its weights, or set teacher.dtype=float32"
        )


def _limits(folder: Path, config: TeacherConfig) -> tuple[int, int]:
    """Return the vocabulary size and the context in tokens that the model declares."""
    try:
        declared = AutoConfig.from_pretrained(
            folder, trust_remote_code=config.trust_remote_code
        ).get_text_config()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DependencyError(f"teacher {folder}: config.json cannot be read: {reason}") from error
    unbounded = sys.maxsize  # ALiBi models, for one, declare no longest sequence
    context = getattr(declared, "max_position_embeddings", None) or unbounded
    return declared.vocab_size, min(context, config.max_model_len or unbounded)
