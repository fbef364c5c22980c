"""The student and the samplers that draw its responses."""

from typing import Literal

from pydantic import Field

from configs.models import ModelSource
from configs.sampling import Sampling

WeightTransfer = Literal["auto", "object_store", "nccl", "ipc"]


class StudentConfig(ModelSource):
    """The small model that learns, and how its responses y_s are drawn."""

    replicas: int = Field(default=1, ge=1)
    """Number of sampler actors."""
    initial_replicas: int | None = Field(default=None, ge=1)
    """Samplers with which a run begins; the others join it as the cluster has places for them.
    None: it begins with all of them."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts per call of ``generate``; while an engine draws so many, a later call's wait. A
    weight push waits for the calls that came in before it."""
    sampling: Sampling = Sampling()
    """How y_s is drawn. DPKD draws at temperature 1 (paper, Algorithm 1)."""
    max_model_len: int | None = Field(default=None, ge=8)
    """Context of the engine in tokens; None: the model's own."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of one actor; None: an even share of the machine's cores."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """Memory of the engine's key-value cache on a CPU, GiB."""
    gpu_memory_utilization: float = Field(default=0.4, gt=0, le=1)
    """Share of a GPU's memory that the engine may take."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs per sampler replica."""
    weight_transfer: WeightTransfer = "auto"
    """How new weights reach the engine: through Ray's object store (any device),
    or by vLLM's own CUDA transports; auto: nccl on a GPU, object_store elsewhere."""
