"""The replay queue and how far sampling may run ahead of learning."""

from typing import Literal

from pydantic import Field

from configs.base import Section

DropReason = Literal["stale", "invalid_input", "too_long", "teacher_failed", "nonfinite", "poison"]
"""Why a use of a prompt was given up: the closed list of ledger, queue and metrics."""


class ReplayConfig(Section):
    """Bounds of the replay queue."""

    max_policy_lag: int = Field(default=0, ge=0)
    """Largest number of learner steps between drawing a response and learning from it.
    0 is lockstep, exactly on-policy; k > 0 overlaps sampling and learning. Lag changes what
    DPKD converges to: see docs/math.md."""
    max_tuples: int = Field(default=4096, ge=1)
    """Most tuples held, leased ones included; full means that producers wait."""
    max_bytes: int = Field(default=1 << 30, ge=1024)
    """Most bytes that the tuples held take where they were made; full means that producers wait."""
    max_dropped: int = Field(default=256, ge=0)
    """Uses of prompts that a run may give up before it fails, its teacher or data being wrong."""
    lease_seconds: float = Field(default=600.0, gt=0)
    """An unacknowledged lease is delivered again after this time."""
