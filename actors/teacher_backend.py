"""What stands behind a teacher: a model in this process, or a server elsewhere.

Engines and scorers start when they are first asked for, or never.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from actors.engine_scoring import EngineScorer, PromptLogprobsEngine
from actors.limits import Limits, declared_limits
from actors.model_folder import model_fingerprint, model_folder
from actors.scoring import Scorer, TorchScorer
from actors.tokenizer import tokenizer_fingerprint
from actors.vllm_engine import MAX_LOGPROBS, VllmEngine
from configs.sampling import Sampling
from configs.teacher import AnyTeacherConfig, OpenAiTeacherConfig, TeacherConfig
from configs.wire import Response


class Engine(PromptLogprobsEngine, Protocol):
    """What the teacher uses of ``VllmEngine``."""

    def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Response]:
        """Draw one response a prompt; ``behaviour_logprobs_T`` is set where the engine tells."""
        ...

    def warm_up(self) -> None:
        """Generate once."""
        ...

    def close(self) -> None:
        """End the engine."""
        ...


class ServerEngine(Engine, Protocol):
    """What the teacher uses of ``OpenAiEngine``."""

    fingerprint: str
    context: int
    vocab_size: int | None


class Backend(Protocol):
    """The two kinds of teacher, as ``TeacherServer`` sees them."""

    name: str
    """Names the model in errors."""
    limits: Limits
    top_k: int | None
    """How many of the likeliest tokens are sent of each state; None: none are asked."""
    recipe: dict[str, object]
    """What of it decides a response, beside what its fingerprint covers: part of cache keys."""

    def fingerprint(self) -> str:
        """Return a text that changes whenever the model does: it names the cache's file."""
        ...

    def engine(self) -> Engine:
        """Return the running engine."""
        ...

    def scorer(self) -> Scorer:
        """Return the running scorer."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class ModelBackend:
    """A model folder, drawn from by vLLM and scored by torch or vLLM."""

    def __init__(
        self,
        config: TeacherConfig,
        *,
        model: str,
        seed: int,
        distribution: bool,
        exit_on_engine_death: bool,
        start_engine: Callable[[], Engine] | None,
    ) -> None:
        """Find the files and what they declare; load no weights yet.

        ``distribution``: the likeliest tokens will be asked for. Raises DependencyError when the
        model is incomplete, ConfigError when it has fewer tokens than that.
        """
        self._config = config
        self._seed = seed
        self._exit_on_engine_death = exit_on_engine_death
        self._start_engine = start_engine or self._start_vllm
        self._folder = model_folder(model, revision=config.revision)
        self.name = str(self._folder)
        self.limits = declared_limits(
            self._folder,
            owner="teacher",
            trust_remote_code=config.trust_remote_code,
            max_model_len=config.max_model_len,
        )
        self.top_k = self.limits.top_k(config.distribution_top_k) if distribution else None
        self.recipe: dict[str, object] = {"scorer": config.scorer}
        self._engine: Engine | None = None
        self._scorer: Scorer | None = None

    def fingerprint(self) -> str:
        """Return the digest of the files and the number format."""
        return model_fingerprint(self._folder, dtype=self._config.dtype)

    def engine(self) -> Engine:
        """Return the running engine, started now if need be."""
        if self._engine is None:
            self._engine = self._start_engine()
        return self._engine

    def scorer(self) -> Scorer:
        """Return the running scorer, started now if need be."""
        if self._scorer is None and self._config.scorer == "vllm":
            self._scorer = EngineScorer(self.engine())
        elif self._scorer is None:
            self._scorer = TorchScorer(
                str(self._folder),
                dtype=self._config.dtype,
                trust_remote_code=self._config.trust_remote_code,
                batch_tokens=self._config.score_batch_tokens,
            )
        return self._scorer

    def close(self) -> None:
        """End the engine and free the scorer."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._scorer = None

    def _start_vllm(self) -> Engine:
        return VllmEngine(
            str(self._folder),
            dtype=self._config.dtype,
            seed=self._seed,
            max_model_len=self._config.max_model_len,
            trust_remote_code=self._config.trust_remote_code,
            gpu_memory_utilization=self._config.gpu_memory_utilization,
            tensor_parallel=self._config.tensor_parallel,
            max_logprobs=max(MAX_LOGPROBS, self.top_k or 0),
            exit_on_death=self._exit_on_engine_death,
            # Bits of y_t would depend on what was asked before; repeated prompts are cached anyway.
            prefix_caching=False,
        )


class ServerBackend:
    """A model behind an OpenAI-compatible server, which draws and, given ids, scores.

    The connection is made at once: the server's fingerprint names the cache.
    """

    def __init__(
        self,
        config: OpenAiTeacherConfig,
        *,
        tokenizer: Any,
        seed: int,
        distribution: bool,
        start_engine: Callable[[], ServerEngine] | None,
    ) -> None:
        """Connect; raises what ``OpenAiEngine`` raises, else as ``ModelBackend`` does."""
        self._engine = start_engine() if start_engine else _connect(config, tokenizer, seed)
        self.name = f"{config.model} at {config.base_url}"
        self.limits = Limits(
            owner="teacher", vocab_size=self._engine.vocab_size, context=self._engine.context
        )
        self.top_k = self.limits.top_k(config.distribution_top_k) if distribution else None
        self.recipe: dict[str, object] = {
            "scorer": "openai",
            "tokens": config.tokens,
            "api": config.api,
            # The same text is other ids by another tokenizer, and a prompt's ids another text.
            "tokenizer": None if config.tokens == "ids" else tokenizer_fingerprint(tokenizer),
        }

    def fingerprint(self) -> str:
        """Return what the server says of its model."""
        return self._engine.fingerprint

    def engine(self) -> Engine:
        """Return the connection."""
        return self._engine

    def scorer(self) -> Scorer:
        """Return a scorer that asks the server."""
        return EngineScorer(self._engine)

    def close(self) -> None:
        """End the connection."""
        self._engine.close()


def open_backend(
    config: AnyTeacherConfig,
    *,
    model: str | None,
    seed: int,
    distribution: bool,
    tokenizer: Any,
    exit_on_engine_death: bool,
    start_engine: Callable[[], Any] | None,
) -> Backend:
    """Return the teacher that ``config`` names; ``start_engine`` None starts its own engine."""
    if isinstance(config, OpenAiTeacherConfig):
        return ServerBackend(
            config,
            tokenizer=tokenizer,
            seed=seed,
            distribution=distribution,
            start_engine=start_engine,
        )
    assert model is not None, "a teacher in this cluster has a folder"
    return ModelBackend(
        config,
        model=model,
        seed=seed,
        distribution=distribution,
        exit_on_engine_death=exit_on_engine_death,
        start_engine=start_engine,
    )


def _connect(config: OpenAiTeacherConfig, tokenizer: Any, seed: int) -> ServerEngine:
    from actors.openai_engine import OpenAiEngine

    return OpenAiEngine(config, tokenizer=tokenizer, seed=seed)
