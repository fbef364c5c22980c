"""What every objective says of itself: on which sequences it is taken, and what it needs."""

from typing import ClassVar, Literal

from pydantic import Field

from configs.base import Section

Need = Literal[
    "gold",
    "teacher_response",
    "student_response",
    "teacher_logprobs",
    "teacher_distribution",
    "reference_logprobs",
    "response_score",
]
"""What an objective asks of the pipeline; only the roles that provide it are started."""

Sequences = Literal["gold", "teacher", "pair", "rollout"]
"""The sequences that a tuple must hold: the data's own response; the teacher's y_t; y_t and y_s;
or one of y_t and y_s, chosen for each tuple by ``student_share``."""

States = Literal["dataset", "teacher", "student"]
"""Whose responses a token-level objective visits: the data's own, the teacher's y_t or the
student's y_s."""


class Objective(Section):
    """The part that all objectives share."""

    of: ClassVar[Sequences] = "pair"
    knowledge: ClassVar[frozenset[Need]] = frozenset()
    """What is asked of a response beside its tokens."""
    importance_weighted: ClassVar[bool] = False
    """Whether responses have weights q/mu: the models must then draw as their log-probabilities
    say, at temperature 1."""

    lm_weight: float = Field(default=0.0, ge=0)
    """Lambda, the weight of the language-model loss -log q(d)/|d| on the corpus, or on the gold
    response where there is no corpus (DPKD, section 3.1). Joins any objective."""

    @property
    def sequences(self) -> Sequences:
        """The sequences that a tuple must hold."""
        return self.of

    @property
    def student_share(self) -> float:
        """Share of tuples that hold a student response, drawn by uid."""
        return 1.0 if self.sequences == "pair" else 0.0

    @property
    def responds_with_gold(self) -> bool:
        """Whether the data's own response takes the place of y_t, whatever the teacher says."""
        return False

    @property
    def needs(self) -> frozenset[Need]:
        """Everything that the pipeline must provide."""
        found: set[Need] = set(self.knowledge)
        if self.sequences == "gold":
            found.add("gold")
        elif self.sequences in ("teacher", "pair") or self.student_share < 1:
            found.add("teacher_response")
        if self.student_share > 0:
            found.add("student_response")
        return frozenset(found)


class RolloutObjective(Objective):
    """An objective on single sequences, whose states the student or another visits."""

    of: ClassVar[Sequences] = "rollout"

    states: States = "dataset"
    """Whose responses are visited."""

    @property
    def student_share(self) -> float:
        """All or none, as ``states`` says."""
        return 1.0 if self.states == "student" else 0.0

    @property
    def responds_with_gold(self) -> bool:
        """Dataset states are the data's own responses."""
        return self.states == "dataset"
