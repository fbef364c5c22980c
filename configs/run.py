"""RunConfig, the root of the configuration tree, and the rules that cross its sections."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.base import Section
from configs.cluster import ClusterConfig
from configs.data import DataConfig
from configs.evaluation import EvaluationConfig
from configs.learner import LearnerConfig
from configs.models import MakeModel, ModelSource
from configs.monitoring import MonitoringConfig
from configs.negatives import NegativesConfig
from configs.objective import DpkdConfig, Need, ObjectiveConfig
from configs.replay import ReplayConfig
from configs.student import StudentConfig
from configs.teacher import AnyTeacherConfig, TeacherConfig

TEACHER_NEEDS: frozenset[Need] = frozenset(
    {"teacher_response", "teacher_logprobs", "teacher_distribution", "response_score"}
)
"""What only a teacher provides."""
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM 0.32's CPU attention was compiled for (vllm/v1/attention/backends/cpu_attn.py)."""


class RunConfig(Section):
    """Everything that determines a run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run folder, ``<output>/<name>``."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything: data order, initialisation, sampling."""
    output: Path = Path("runs")
    """Folder that holds run folders."""
    cache: Path = Path("~/.cache/dpkd")
    """Folder of made models and teacher responses; shared by runs."""
    existing: Literal["keep", "replace", "refuse"] = "keep"
    """What becomes of an earlier run of this name: kept as ``<name>.1``, ``<name>.2``, ...;
    deleted; or a reason to refuse."""
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
    def push_every(self) -> int | None:
        """Steps between the pushes that sampling for learning gets; None: none after the start."""
        return self.negatives.push_every if self.learns_from_student else None

    @property
    def lag_bound(self) -> int:
        """Largest age, in learner steps, of a response that is learned from."""
        every = self.push_every
        if every is None or self.negatives.offline_share:
            return max(self.learner.steps, self.replay.max_policy_lag)
        return self.replay.max_policy_lag + every - 1

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        _check_source("student", self.student)
        if isinstance(self.teacher, TeacherConfig) and self.uses_teacher:
            _check_source("teacher", self.teacher)
            _check_both_made(self.student, self.teacher)
        _check_teacher_can(self)
        if self.learner.batch_size % self.negatives.samples:
            raise ValueError(
                f"learner.batch_size ({self.learner.batch_size}) must be a multiple of "
                f"negatives.samples ({self.negatives.samples}), so that a step holds whole groups"
            )
        if self.learner.batch_size % self.learner.ranks:
            raise ValueError(
                f"learner.batch_size ({self.learner.batch_size}) must be a multiple of "
                f"learner.ranks ({self.learner.ranks})"
            )
        if (self.student.dtype, self.learner.dtype) == ("bfloat16", "float32"):
            raise ValueError(
                "student.dtype=bfloat16 with learner.dtype=float32: the samplers would round away "
                "what the learner trained, and no push could be proved; set both to one format"
            )
        if (
            self.cluster.local
            and max(self.learner.ranks, self.student.replicas, self.teacher.replicas) > 1
        ):
            raise ValueError(
                "cluster.local runs one actor of each role, and learner.ranks, student.replicas or "
                "teacher.replicas is larger; set cluster.local=false"
            )
        _check_gold(self)
        if self.student.weight_transfer in ("nccl", "ipc") and self.learner.ranks > 1:
            raise ValueError(
                f"student.weight_transfer={self.student.weight_transfer} is driven by a learner of "
                f"one rank, and learner.ranks is {self.learner.ranks}; use object_store"
            )
        if self.replay.max_tuples < self.learner.batch_size:
            raise ValueError(
                f"replay.max_tuples ({self.replay.max_tuples}) must hold at least one batch: "
                f"learner.batch_size is {self.learner.batch_size}"
            )
        return self


def _check_teacher_can(config: RunConfig) -> None:
    """Refuse at once an objective whose needs the teacher cannot meet."""
    teacher, needs = config.teacher, config.objective.needs
    if getattr(teacher, "api", None) == "chat" and config.data.template is None:
        raise ValueError(
            "data.template=null writes the student's chat template into the prompt, and "
            "teacher.api=chat would wrap that in the server's own; set data.template, or "
            "teacher.api=completions"
        )
    asked = sorted(needs & {"teacher_logprobs", "teacher_distribution"})
    if asked and not teacher.gives_logprobs:
        raise ValueError(
            f"objective.type={config.objective.type} needs {' and '.join(asked)}, and a teacher of "
            "teacher.tokens=text gives text only; set teacher.tokens=ids for a vLLM server, or an "
            "objective that learns from text: seqkd, plad, cpo, simpo, ddpo"
        )
    if "teacher_distribution" not in needs:
        return
    k, bound = teacher.distribution_top_k, getattr(teacher, "max_logprobs", None)
    if bound is not None and (k is None or k > bound):
        raise ValueError(
            f"teacher.distribution_top_k ({'the vocabulary' if k is None else k}) is more than the "
            f"server's teacher.max_logprobs ({bound}); lower it, or start the server with a larger "
            "--max-logprobs and set teacher.max_logprobs"
        )
    tokens = max(config.student.sampling.max_new_tokens, teacher.sampling.max_new_tokens)
    nbytes = 8 * (k or 0) * tokens * config.learner.batch_size
    if nbytes > config.replay.max_bytes:
        raise ValueError(
            f"a batch's teacher distributions may take {nbytes} bytes, more than replay.max_bytes "
            f"({config.replay.max_bytes}); lower teacher.distribution_top_k"
        )


def _check_gold(config: RunConfig) -> None:
    """Rows without a response serve only what never asks for one."""
    if config.data.columns.response is not None:
        return
    lm_weight = config.objective.lm_weight
    wants = {
        "objective.type": "gold" in config.objective.needs,
        "objective.lm_weight without data.corpus": lm_weight > 0 and config.data.corpus is None,
        "objective.states": config.objective.responds_with_gold,
        "teacher.response": config.learns_from_teacher and config.teacher.response == "gold",
        "student.warm_start": config.student.warm_start is not None,
        "teacher.warm_start": config.uses_teacher
        and getattr(config.teacher, "warm_start", None) is not None,
    }
    if any(wants.values()):
        key = next(key for key, wanted in wants.items() if wanted)
        raise ValueError(
            f"data.columns.response=null says that rows have no response, and {key} needs one"
        )


def _check_source(role: str, source: ModelSource) -> None:
    if (source.model is None) == (source.make is None):
        state = "both" if source.model else "neither"
        raise ValueError(
            f"exactly one of {role}.model and {role}.make must be set, and {state} is; "
            f"set {role}.model=FOLDER, with {role}.make=null where the recipe makes one"
        )
    if source.make and source.warm_start is None:
        raise ValueError(
            f"{role}.make gives a random model, which needs {role}.warm_start to be trained"
        )
    if source.make:
        _check_heads(role, source.make)


def _check_heads(role: str, make: MakeModel) -> None:
    size, rest = divmod(make.hidden_size, make.heads)
    if rest:
        raise ValueError(
            f"{role}.make.heads ({make.heads}) must divide "
            f"{role}.make.hidden_size ({make.hidden_size})"
        )
    if size not in CPU_HEAD_SIZES:
        raise ValueError(
            f"{role}.make.hidden_size / {role}.make.heads is {size}, and vLLM's attention on a "
            f"CPU takes heads of {', '.join(map(str, CPU_HEAD_SIZES))}"
        )


def _check_both_made(student: ModelSource, teacher: ModelSource) -> None:
    if student.make is None and teacher.make is not None:
        raise ValueError(
            "teacher.make with student.model: a made teacher gets a tokenizer of its own, which "
            "the student's cannot equal; set teacher.model too"
        )
