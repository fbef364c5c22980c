"""Objectives that match distributions token by token, on given states."""

from typing import ClassVar, Literal

from pydantic import Field

from configs.objectives.base import Need, Objective, RolloutObjective, Sequences, States

_DISTRIBUTION: frozenset[Need] = frozenset({"teacher_logprobs", "teacher_distribution"})


class KdConfig(RolloutObjective):
    """Word-level distillation: KL(p || q) at every state (Hinton 2015, Sanh 2019)."""

    knowledge: ClassVar[frozenset[Need]] = _DISTRIBUTION

    type: Literal["kd"] = "kd"
    nll_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of -log q of the visited responses in the loss; the rest is the divergence."""


class ReverseKlConfig(RolloutObjective):
    """Reverse KL(q || p) at every state, by default on the student's own."""

    knowledge: ClassVar[frozenset[Need]] = _DISTRIBUTION

    type: Literal["reverse_kl"] = "reverse_kl"
    states: States = "student"
    """Whose responses are visited."""


class GkdConfig(Objective):
    """Generalised KD (arXiv 2306.13649): a generalised Jensen-Shannon divergence."""

    of: ClassVar[Sequences] = "rollout"
    knowledge: ClassVar[frozenset[Need]] = _DISTRIBUTION

    type: Literal["gkd"] = "gkd"
    beta: float = Field(default=0.5, ge=0, le=1)
    """beta KL(p||m) + (1-beta) KL(q||m), m = beta p + (1-beta) q; 0 is KL(p||q), 1 is KL(q||p)."""
    on_policy_share: float = Field(default=0.5, ge=0, le=1)
    """Lambda, the share of sequences that the student draws; the others are ``states``."""
    states: Literal["dataset", "teacher"] = "dataset"
    """Whose responses the other sequences are."""

    @property
    def student_share(self) -> float:
        """Lambda."""
        return self.on_policy_share

    @property
    def responds_with_gold(self) -> bool:
        """Dataset states are the data's own responses."""
        return self.states == "dataset"


class AklConfig(RolloutObjective):
    """Adaptive KL (arXiv 2404.02657): forward and reverse KL weighted by head and tail gaps."""

    knowledge: ClassVar[frozenset[Need]] = _DISTRIBUTION

    type: Literal["akl"] = "akl"
    head_mass: float = Field(default=0.5, gt=0, lt=1)
    """The head is the teacher's likeliest tokens up to this mass."""
