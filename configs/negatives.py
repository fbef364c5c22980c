"""Which student the responses y_s are drawn by: how fresh the negatives of a pair are."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Section


class NegativesConfig(Section):
    """The behaviour policy of y_s, and how many responses it draws for a prompt.

    DPKD converges to something else with stale negatives (docs/math.md, identities 12 and 13).
    """

    type: Literal["fresh", "snapshot", "initial"] = "fresh"
    """``fresh``: the newest weights, but for the policy lag; ``snapshot``: weights that are
    renewed every so many steps; ``initial``: the student as it was before the first step."""
    every: int | None = Field(default=None, ge=1)
    """Of ``snapshot``: steps between renewals."""
    samples: int = Field(default=1, ge=1)
    """Student responses drawn for each use of a prompt, each a pair of its own. Must divide
    ``learner.batch_size``, so that a step holds whole groups."""
    offline_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of pairs, drawn by uid, whose y_s a sampler of its own draws with the initial
    student's weights; the others are as ``type`` says."""

    @property
    def push_every(self) -> int | None:
        """Steps between the pushes that sampling for learning gets; None: none after the start."""
        return {"fresh": 1, "snapshot": self.every, "initial": None}[self.type]

    @model_validator(mode="after")
    def _every_is_of_snapshots(self) -> Self:
        if (self.type == "snapshot") != (self.every is not None):
            state = "is missing" if self.every is None else f"has no meaning for {self.type}"
            raise ValueError(f"negatives.every {state}: it goes with negatives.type=snapshot")
        if self.type == "initial" and self.offline_share:
            raise ValueError(
                "negatives.type=initial draws every y_s offline already: leave offline_share out"
            )
        return self
