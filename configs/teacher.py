"""The teacher: its responses y_t and its log-probabilities."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.models import ModelSource
from configs.sampling import Sampling


class TeacherConfig(ModelSource):
    """The large model p, which DPKD's objective takes as its reference policy."""

    replicas: int = Field(default=1, ge=1)
    """Number of teacher actors."""
    response: Literal["generate", "gold"] = "generate"
    """Where y_t comes from: drawn by the teacher, or the data's own response."""
    sampling: Sampling = Sampling()
    """How y_t is drawn."""
    scorer: Literal["torch", "vllm"] = "torch"
    """Engine of log p(y): batched torch forwards, or vLLM ``prompt_logprobs``."""
    score_batch_tokens: int = Field(default=8192, ge=64)
    """Padded tokens per scoring forward."""
    first_token_distribution: bool = True
    """Send log p(. | x) with every pair, for exact first-token divergences: 4 bytes a
    vocabulary entry a pair."""
    cache: bool = True
    """Keep y_t and log p(y_t) on disk, keyed by teacher, prompt and sampling parameters."""
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

    @model_validator(mode="after")
    def _scorer_gives_what_is_asked(self) -> Self:
        if self.scorer == "vllm" and self.first_token_distribution:
            raise ValueError(
                "teacher.scorer=vllm cannot give the first token's whole distribution; "
                "set teacher.first_token_distribution=false, or teacher.scorer=torch"
            )
        return self
