"""RunConfig, the root of the configuration tree."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.agreement import check_agreement
from configs.base import Section
from configs.checkpoint import CheckpointConfig
from configs.cluster import ClusterConfig
from configs.data import DataConfig
from configs.evaluation import EvaluationConfig
from configs.learner import LearnerConfig
from configs.monitoring import MonitoringConfig
from configs.negatives import NegativesConfig
from configs.objective import DpkdConfig, Need, ObjectiveConfig
from configs.replay import ReplayConfig
from configs.student import StudentConfig, WeightTransfer
from configs.supervision import SupervisionConfig
from configs.teacher import AnyTeacherConfig, TeacherConfig

TEACHER_NEEDS: frozenset[Need] = frozenset(
    {"teacher_response", "teacher_logprobs", "teacher_distribution", "response_score"}
)
"""What only a teacher provides."""


class RunConfig(Section):
    """Everything that determines a run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run folder, ``<output>/<name>``."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything: data order, initialisation, sampling."""
    output: Path = Path("runs")
    """Folder that holds run folders."""
    cache: Path = Path("~/.cache/dpkd")
    """Folder of made models and teacher responses; shared by runs."""
    existing: Literal["keep", "replace", "refuse"] = "keep"
    """What becomes of an earlier run of this name: kept as ``<name>.1``, ``<name>.2``, ...;
    deleted; or a reason to refuse."""
    resume: str = "never"
    """``never``: begin; ``auto``: go on with the run of this name from its newest sound
    checkpoint, or begin where there is no such run; or the folder of a checkpoint, or of another
    run, to go on from."""
    deterministic: bool = False
    """Lockstep with fixed arithmetic: a run that is killed and resumed gives, bit for bit, the
    losses and the student of one that was not disturbed."""
    data: DataConfig = DataConfig()
    """What is read."""
    student: StudentConfig = StudentConfig()
    """The model that learns."""
    teacher: AnyTeacherConfig = TeacherConfig()
    """The model it learns from."""
    objective: ObjectiveConfig = DpkdConfig()
    """What is minimised."""
    negatives: NegativesConfig = NegativesConfig()
    """Which student draws the responses y_s that it is minimised on."""
    learner: LearnerConfig = LearnerConfig()
    """How it is minimised."""
    replay: ReplayConfig = ReplayConfig()
    """What stands between sampling and learning."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """What is kept for a resume."""
    supervision: SupervisionConfig = SupervisionConfig()
    """What is done about parts that die."""
    cluster: ClusterConfig = ClusterConfig()
    """Where it runs."""
    monitoring: MonitoringConfig = MonitoringConfig()
    """How it shows itself."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _teacher_is_a_model_unless_said(cls, given: Any) -> Any:
        return {"type": "model", **given} if isinstance(given, dict) else given

    @property
    def learns_from_student(self) -> bool:
        """Whether student responses are drawn for learning."""
        return "student_response" in self.objective.needs

    @property
    def learns_from_teacher(self) -> bool:
        """Whether the objective asks the teacher for anything."""
        return bool(self.objective.needs & TEACHER_NEEDS)

    @property
    def uses_sampler(self) -> bool:
        """Whether a sampler runs, be it for evaluation alone."""
        return self.learns_from_student or self.evaluation.generate

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher runs, be it for evaluation alone."""
        evaluated = self.evaluation.teacher or self.evaluates_reverse_kl
        return self.learns_from_teacher or (
            self.evaluation.generate and self.teacher.configured and evaluated
        )

    @property
    def evaluates_reverse_kl(self) -> bool:
        """Whether evaluation has the student's responses scored by the teacher."""
        wanted = self.evaluation.generate and self.evaluation.reverse_kl
        return wanted and self.teacher.configured and self.teacher.gives_logprobs

    @property
    def response_source(self) -> Literal["generate", "gold"]:
        """Where y_t comes from: the objective's dataset states go before the teacher's setting."""
        return "gold" if self.objective.responds_with_gold else self.teacher.response

    @property
    def draws_offline(self) -> bool:
        """Whether a sampler of its own keeps the initial weights."""
        return self.learns_from_student and self.negatives.offline_share > 0

    @property
    def samples_per_prompt(self) -> int:
        """Uses that a prompt has in a step: one where no student response is learned from."""
        return self.negatives.samples if self.learns_from_student else 1

    @property
    def push_every(self) -> int | None:
        """Steps between the pushes that sampling for learning gets; None: none after the start."""
        return self.negatives.push_every if self.learns_from_student else None

    @property
    def weight_transfer(self) -> WeightTransfer:
        """How new weights reach the samplers; ``auto``: as their device has it.

        vLLM's CUDA transports are driven by a learner of one rank, from a process of its own, to
        samplers that are all there when it opens; they bring no snapshot back.
        """
        fit = self.learner.ranks == 1 and not self.cluster.local and self.push_every == 1
        stays = self.student.initial_replicas is None
        wished = self.student.weight_transfer
        return "object_store" if wished == "auto" and not (fit and stays) else wished

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints; 0: none. Where negatives come from snapshots a checkpoint is
        due with a new snapshot only, whose weights it then holds.
        """
        every, push = self.checkpoint.every, self.push_every or 1
        return -(-every // push) * push

    @property
    def lag_bound(self) -> int:
        """Largest age, in learner steps, of a response that is learned from."""
        every = self.push_every
        if every is None or self.negatives.offline_share:
            return max(self.learner.steps, self.replay.max_policy_lag)
        return self.replay.max_policy_lag + every - 1

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        check_agreement(self)
        return self
