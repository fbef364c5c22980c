"""Objectives that follow the policy gradient of -KL(q || p) on drawn sequences."""

from typing import ClassVar, Literal

from pydantic import Field

from configs.objectives.base import Need, Objective, Sequences


class MiniLlmConfig(Objective):
    """MiniLLM (arXiv 2306.08543): policy gradient with its three stabilisers.

    Sequences are drawn from the mixture of the two models sequence by sequence, not token by
    token: their exact conditional mixture probabilities give the importance weights.
    """

    of: ClassVar[Sequences] = "rollout"
    knowledge: ClassVar[frozenset[Need]] = frozenset({"teacher_logprobs"})
    importance_weighted: ClassVar[bool] = True

    type: Literal["minillm"] = "minillm"
    teacher_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of sequences that the teacher draws (the paper's alpha)."""
    clip: float = Field(default=0.2, gt=0)
    """Importance ratios are clipped to [1 - clip, 1 + clip] where that lowers the surrogate."""
    single_step: bool = True
    """Add the exact one-step term KL(q || p) at every state."""
    length_normalised: bool = True
    """Divide the return to go by the number of tokens that it sums."""

    @property
    def student_share(self) -> float:
        """What the teacher does not draw."""
        return 1.0 - self.teacher_share

    @property
    def needs(self) -> frozenset[Need]:
        """Log p of the tokens; the single step the teacher's distribution too."""
        asked: frozenset[Need] = frozenset({"teacher_distribution"} if self.single_step else ())
        return super().needs | asked


class OpdConfig(Objective):
    """On-policy distillation: advantage -(log q - log p) of each drawn token, discount 0."""

    of: ClassVar[Sequences] = "rollout"
    knowledge: ClassVar[frozenset[Need]] = frozenset({"teacher_logprobs"})
    importance_weighted: ClassVar[bool] = True

    type: Literal["opd"] = "opd"
    clip: float | None = Field(default=None, gt=0)
    """Importance ratios are clipped to [1 - clip, 1 + clip] where that lowers the surrogate;
    None: never."""

    @property
    def student_share(self) -> float:
        """Every sequence is the student's."""
        return 1.0
