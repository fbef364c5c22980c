"""The learner: optimizer, schedule, precision, sharding."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Section
from configs.models import DType

DecayRate = Annotated[float, Field(ge=0, lt=1)]


class LearnerConfig(Section):
    """A group of DeepSpeed ranks that makes the steps."""

    steps: int = Field(default=150, ge=1)
    """Optimizer steps of the run."""
    batch_size: int = Field(default=32, ge=1)
    """Pairs per optimizer step, over all ranks."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    min_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """Where the cosine schedule ends, as a share of the peak."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[DecayRate, DecayRate] = (0.9, 0.95)
    """AdamW's exponential decay rates."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are scaled down."""
    micro_batch_tokens: int = Field(default=16384, ge=64)
    """Padded tokens per forward and backward; a batch is cut into as many as it takes."""
    logits_at_once: int = Field(default=1 << 26, ge=1024)
    """Logits that exist at one time, in values: 256 MiB in float32. Where a micro-batch's are no
    more they are kept for the backward pass; else they are computed twice."""
    share_prompts: bool = True
    """Whether a tuple's responses hold their prompt in common: it is computed once for all. The
    numbers are the same up to rounding."""
    ranks: int = Field(default=1, ge=1)
    """Learner processes (data-parallel ranks)."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over ranks (0 nothing, 1 optimizer, 2 + gradients,
    3 + parameters)."""
    dtype: DType = "float32"
    """Number format of parameters in forward and backward."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """How torch multiplies float32 matrices while it trains. ``medium``: in bfloat16, where the
    processor has instructions for that, and ``high``, on a GPU, in TF32; weights, attention on a
    CPU, softmax, loss and optimizer stay as they are, and so does the probe of a push."""
    activation_checkpointing: bool = False
    """Recompute block activations in the backward pass."""
    max_nonfinite_steps: int = Field(default=3, ge=0)
    """Steps in a row that are skipped for a NaN or infinite loss or gradient, before the run
    stops."""
    threads: int | None = Field(default=None, ge=1)
    """torch threads of one rank on a CPU; None: an even share of the machine's cores."""
