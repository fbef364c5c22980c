"""When the state of a run is kept, and where."""

from pathlib import Path

from pydantic import Field

from configs.base import Section


class CheckpointConfig(Section):
    """What a killed run goes on from: see docs/nothing-lost.md."""

    every: int = Field(default=50, ge=0)
    """Learner steps between checkpoints, the most work that a crash can cost; one is also made at
    the end and at a clean stop. 0: none at all."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept; an older one is the fallback of a damaged newer one."""
    folder: Path | None = None
    """Folder of the checkpoints; None: ``checkpoints`` in the run folder. Driver and learner ranks
    must see it under the same path."""
    max_failures: int = Field(default=3, ge=1)
    """Checkpoints in a row that may fail, on a full disk say, before the run stops."""
    accept: tuple[str, ...] = ()
    """Dotted keys of settings that may differ from the checkpoint's, such as
    ``[learner.learning_rate]``, and of ``data``, ``tokenizer``, ``models.student`` or
    ``models.teacher`` where their content changed."""
