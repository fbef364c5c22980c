"""The teacher: its responses y_t and its log-probabilities."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from configs.base import Section
from configs.models import ModelSource
from configs.sampling import Sampling


class TeacherBase(Section):
    """What every kind of teacher is asked."""

    replicas: int = Field(default=1, ge=1)
    """Number of teacher actors."""
    response: Literal["generate", "gold"] = "generate"
    """Where y_t comes from: drawn by the teacher, or the data's own response."""
    sampling: Sampling = Sampling()
    """How y_t is drawn."""
    draws: int = Field(default=1, ge=1)
    """Different y_t drawn for one prompt, which its rows and epochs use in turn. More of them
    show more of the teacher where prompts come again; each is made once."""
    first_token_distribution: bool = True
    """Send log p(. | x) with every pair, for exact first-token divergences: 4 bytes a
    vocabulary entry a pair. Needs a teacher that is scored by torch."""
    distribution_top_k: int | None = Field(default=64, ge=1)
    """For objectives that match distributions: the likeliest tokens that are sent of each state,
    8 bytes each; the rest counts as one tail. None: the whole vocabulary, exact. The learner holds
    several arrays of so many values a token: a large k wants a small
    ``learner.micro_batch_tokens``."""
    cache: bool = True
    """Keep y_t and log p(y_t) on disk, keyed by teacher, prompt and sampling parameters."""

    @model_validator(mode="after")
    def _draws_can_differ(self) -> Self:
        if self.draws > 1 and (self.response == "gold" or not self.sampling.temperature):
            one = "response=gold" if self.response == "gold" else "sampling.temperature=0"
            raise ValueError(
                f"teacher.draws={self.draws} asks for different y_t of a prompt, and "
                f"teacher.{one} gives one; leave teacher.draws out"
            )
        return self


class TeacherConfig(TeacherBase, ModelSource):
    """The large model p in this cluster, which DPKD takes as its reference policy."""

    type: Literal["model"] = "model"
    scorer: Literal["torch", "vllm"] = "torch"
    """Engine of log p(y): batched torch forwards, or vLLM ``prompt_logprobs``."""
    score_batch_tokens: int = Field(default=8192, ge=64)
    """Padded tokens per scoring forward."""
    max_model_len: int | None = Field(default=None, ge=8)
    """Context of the engine in tokens; None: the model's own."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of one actor; None: an even share of the machine's cores."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """Memory of the engine's key-value cache on a CPU, GiB."""
    gpu_memory_utilization: float = Field(default=0.4, gt=0, le=1)
    """Share of a GPU's memory that the engine may take."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs per teacher replica."""

    @property
    def configured(self) -> bool:
        """Whether there is a teacher at all."""
        return self.model is not None or self.make is not None

    @property
    def gives_logprobs(self) -> bool:
        """Whether it can score given responses."""
        return True

    @model_validator(mode="after")
    def _scorer_gives_what_is_asked(self) -> Self:
        if self.scorer == "vllm" and self.first_token_distribution:
            raise ValueError(
                "teacher.scorer=vllm cannot give the first token's whole distribution; "
                "set teacher.first_token_distribution=false, or teacher.scorer=torch"
            )
        return self


class OpenAiTeacherConfig(TeacherBase):
    """A teacher behind an OpenAI-compatible server, outside this cluster."""

    type: Literal["openai"] = "openai"
    base_url: str = "http://127.0.0.1:8000/v1"
    """The server's address, its API version included."""
    model: str = Field(min_length=1)
    """The model's name at the server."""
    tokens: Literal["ids", "text"] = "text"
    """``ids``: prompts and responses travel as token ids, which vLLM's server takes and gives;
    teacher and student then share a tokenizer. ``text``: they travel as text, any server will
    do, and the tokenizer is the student's own; no log-probabilities then."""
    api: Literal["completions", "chat"] = "completions"
    """Endpoint that draws y_t; chat sends the prompt as one user message (``tokens: text``)."""
    key_file: Path | None = None
    """File that holds the API key alone."""
    key_env: str | None = None
    """Environment variable that holds the API key, such as OPENAI_API_KEY, where ``key_file`` is
    not set; None: no key is sent. Read where the teacher's actor runs."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Longest wait for one request."""
    max_retries: int = Field(default=12, ge=0)
    """Further tries of a request that failed for a passing reason, with exponential back-off and
    jitter; the server's Retry-After is heeded."""
    concurrency: int = Field(default=16, ge=1)
    """Requests under way at one time, by each replica."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Bound on the rate of requests, by each replica; None: none."""
    distribution_top_k: int | None = Field(default=20, ge=1)
    """As above; at most ``max_logprobs``."""
    max_logprobs: int = Field(default=20, ge=1)
    """Largest ``distribution_top_k`` that the server allows (vLLM: ``--max-logprobs``)."""
    first_token_distribution: bool = False
    """No server gives the first token's whole distribution."""
    fingerprint: str | None = None
    """Expected fingerprint of the served model, as a run prints it; None: whatever is met first.
    A server whose model changes during a run ends the run either way."""

    @property
    def configured(self) -> bool:
        """Whether there is a teacher at all."""
        return True

    @property
    def gives_logprobs(self) -> bool:
        """Whether it can score given responses."""
        return self.tokens == "ids"

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:  # before anything that repeats the address
            raise ValueError(
                "teacher.base_url must hold no name or password: put an API key into "
                "teacher.key_file"
            )
        try:
            _ = parts.port  # checked when it is read
        except ValueError as error:
            raise ValueError(f"teacher.base_url {url!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"teacher.base_url must be http:// or https:// and a host, got {url!r}"
            )
        return url

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.api == "chat" and self.tokens == "ids":
            raise ValueError("teacher.api=chat takes text: set teacher.tokens=text")
        if self.first_token_distribution:
            raise ValueError(
                "no server gives the first token's whole distribution: leave "
                "teacher.first_token_distribution out with teacher.type=openai"
            )
        return self


AnyTeacherConfig = Annotated[TeacherConfig | OpenAiTeacherConfig, Field(discriminator="type")]
"""The teacher, by its ``type``."""
