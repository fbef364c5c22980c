"""The replay queue and how far sampling may run ahead of learning."""

from pydantic import Field

from configs.base import Section


class ReplayConfig(Section):
    """Bounds of the replay queue."""

    max_policy_lag: int = Field(0, ge=0)
    """Largest number of learner steps between drawing a response and learning from it.
    0 is lockstep, exactly on-policy; k > 0 overlaps sampling and learning. Lag changes what
    DPKD converges to: see docs/design/pipeline.md."""
    max_tuples: int = Field(4096, ge=1)
    """Most tuples held, leased ones included; full means that producers wait."""
    max_bytes: int = Field(1 << 30, ge=1024)
    """Most bytes held; full means that producers wait."""
    lease_seconds: float = Field(600.0, gt=0)
    """An unacknowledged lease is delivered again after this time."""
