"""Objectives on pairs: the teacher's response y_t preferred to the student's y_s."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.objectives.base import Need, Objective, Sequences, States


class DpkdConfig(Objective):
    """Direct Preference Knowledge Distillation (arXiv 2406.19774)."""

    type: Literal["dpkd"] = "dpkd"
    level: Literal["sequence", "token"] = "sequence"
    """``sequence``: a preference over whole responses, the paper's Eq 8 and 9; ``token``: over
    two actions at one state, at every state of a response, the authors' released form."""
    beta: float = Field(default=1.0, gt=0)
    """Inverse strength of the KL constraint, per nat; the paper prints no value."""
    length_normalised: bool = True
    """Of ``level: sequence``. True: Eq 9, each side divided by its own tokens; False: Eq 8."""
    states: States = "dataset"
    """Of ``level: token``: whose responses are visited."""
    actions: Literal["argmax", "sampled"] = "argmax"
    """Of ``level: token``: how either model's action at a state is chosen from its distribution."""

    @property
    def sequences(self) -> Sequences:
        """Sequence level compares pairs; token level visits one model's states."""
        return "pair" if self.level == "sequence" else "rollout"

    @property
    def student_share(self) -> float:
        """All, but for token level on other states than the student's."""
        return float(self.level == "sequence" or self.states == "student")

    @property
    def responds_with_gold(self) -> bool:
        """Dataset states are the data's own responses."""
        return self.level == "token" and self.states == "dataset"

    @property
    def needs(self) -> frozenset[Need]:
        """Sequences need log p of their tokens; tokens the teacher's distribution too."""
        asked: set[Need] = {"teacher_logprobs"}
        if self.level == "token":
            asked.add("teacher_distribution")
        return super().needs | asked

    @model_validator(mode="after")
    def _settings_are_of_the_level(self) -> Self:
        given = self.model_fields_set
        if self.level == "sequence" and (self.states, self.actions) != ("dataset", "argmax"):
            raise ValueError("states and actions are settings of level=token: leave them out")
        if self.level == "token" and "length_normalised" in given and not self.length_normalised:
            raise ValueError("length_normalised=false is a setting of level=sequence: leave it out")
        return self


class IpoConfig(Objective):
    """Identity preference optimisation with the teacher as reference (arXiv 2310.12036)."""

    knowledge: ClassVar[frozenset[Need]] = frozenset({"teacher_logprobs"})

    type: Literal["ipo"] = "ipo"
    tau: float = Field(default=1.0, gt=0)
    """The margin's target is 1 / (2 tau), nats (per token where length-normalised)."""
    length_normalised: bool = True
    """Token averages, as in common implementations; False: sums, as printed."""


class CpoConfig(Objective):
    """Contrastive preference optimisation (arXiv 2401.08417): no reference, an NLL anchor."""

    type: Literal["cpo"] = "cpo"
    beta: float = Field(default=0.1, gt=0)
    """Scale of the margin, per nat."""
    nll_weight: float = Field(default=1.0, ge=0)
    """Weight of -log q(y_t)/|y_t|."""


class SimpoConfig(Objective):
    """SimPO (arXiv 2405.14734): length-normalised, no reference, a target margin."""

    type: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0)
    """Scale of the margin, per nat per token."""
    gamma: float = Field(default=1.0, ge=0)
    """Target margin, in units of the scaled reward."""


class PladConfig(Objective):
    """PLaD (arXiv 2406.02886): a hinge on sequence likelihoods, from the teacher's text alone.

    The score of the margin form and all constants are a reconstruction.
    """

    type: Literal["plad"] = "plad"
    form: Literal["ranking", "margin"] = "ranking"
    """``ranking``: the margin is ``beta``; ``margin``: beta times the difference of the
    responses' scores, a score being the likeness to y_t (Rouge-L over tokens)."""
    beta: float = Field(default=1.0, gt=0)
    """Margin, nats (nats per token where length-normalised)."""
    length_normalised: bool = False
    """Compare -log q(y)/|y| instead of -log q(y)."""
    mle_weight: float = Field(default=1.0, ge=0)
    """Lambda of the likelihood anchor -log q(y_t)/|y_t|."""

    @property
    def needs(self) -> frozenset[Need]:
        """Text only; the margin form has the responses scored."""
        scores: frozenset[Need] = frozenset({"response_score"} if self.form == "margin" else ())
        return super().needs | scores


class DadpoConfig(Objective):
    """daDPO (arXiv 2506.15717): KL to the initial student and to the teacher.

    Reconstructed from the abstract: L = -log sigma([B S_q - b1 S_ref - b2 S_p](y_t) - [same](y_s))
    with B = b1 + b2.
    """

    type: Literal["dadpo"] = "dadpo"
    beta_reference: float = Field(default=0.1, ge=0)
    """b1, weight of KL(q || initial student); 0 is DPKD's Eq 8, and asks nothing of it."""
    beta_teacher: float = Field(default=0.1, ge=0)
    """b2, weight of KL(q || teacher); 0 is dDPO, and asks the teacher for text alone."""
    length_normalised: bool = False
    """Divide each side by its own tokens."""

    @property
    def needs(self) -> frozenset[Need]:
        """Log-probabilities of the models that have a weight."""
        asked: set[Need] = set()
        if self.beta_reference > 0:
            asked.add("reference_logprobs")
        if self.beta_teacher > 0:
            asked.add("teacher_logprobs")
        return super().needs | asked

    @model_validator(mode="after")
    def _some_constraint(self) -> Self:
        if not self.beta_reference + self.beta_teacher > 0:
            raise ValueError("beta_reference and beta_teacher must not both be 0")
        return self


class DdpoConfig(Objective):
    """dDPO (arXiv 2310.16944): DPO on distilled pairs, the initial student as reference."""

    knowledge: ClassVar[frozenset[Need]] = frozenset({"reference_logprobs"})

    type: Literal["ddpo"] = "ddpo"
    beta: float = Field(default=0.1, gt=0)
    """Inverse strength of the KL constraint, per nat."""
    length_normalised: bool = False
    """Divide each side by its own tokens."""
