"""Where a model comes from: loaded from a folder or hub, or made from scratch."""

from typing import Literal

from pydantic import Field

from configs.base import Section

Family = Literal["gpt2", "opt", "llama", "qwen2", "qwen3"]
"""Architectures that a recipe may make from scratch, and that the weight push is tested on."""

DType = Literal["float32", "bfloat16"]


class MakeModel(Section):
    """A small model made from a random initialisation and then trained by SFT."""

    family: Family = "gpt2"
    """Architecture, by its Hugging Face model type."""
    hidden_size: int = Field(default=128, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; must divide ``hidden_size``."""
    context: int = Field(default=256, ge=8)
    """Longest prompt plus response in tokens."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights. The usual 0.02 is meant for wide models; about
    1/sqrt(hidden_size) lets a very narrow one learn several times faster."""


class WarmStart(Section):
    """Supervised fine-tuning on the gold responses before distillation, by the same learner."""

    steps: int = Field(default=500, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per optimizer step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    rows: int | None = Field(default=None, ge=1)
    """Train on the first so many rows of the training file only, as where few answers were
    written by hand; distillation still uses every row's prompt. None: all rows."""


class ModelSource(Section):
    """One model of the run. Exactly one of ``model`` and ``make`` is set."""

    model: str | None = None
    """Folder in Hugging Face layout, or a hub name."""
    revision: str | None = None
    """Hub revision to pin; ignored for folders."""
    make: MakeModel | None = None
    """Make the model from scratch instead of loading one."""
    warm_start: WarmStart | None = None
    """SFT before distillation; the result is cached by content hash."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository ships. Off unless said."""
    dtype: DType = "float32"
    """Number format of the weights in the engines that serve this model."""
