"""The rules that cross the sections of a RunConfig: each refuses one contradiction.

Every complaint says which keys contradict each other, with their values, and what to set.
"""

from typing import TYPE_CHECKING

from configs.models import MakeModel, ModelSource
from configs.negatives import NegativesConfig
from configs.sampling import Sampling
from configs.teacher import TeacherConfig

if TYPE_CHECKING:
    from configs.run import RunConfig

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM 0.32's CPU attention was compiled for (vllm/v1/attention/backends/cpu_attn.py)."""


def check_agreement(config: "RunConfig") -> None:
    """Raise ValueError for the first rule that is broken."""
    _check_source("student", config.student)
    if isinstance(config.teacher, TeacherConfig) and config.uses_teacher:
        _check_source("teacher", config.teacher)
        _check_both_made(config.student, config.teacher)
    _check_teacher_can(config)
    _check_drawn_as_scored(config)
    _check_negatives(config)
    _check_batch(config)
    _check_gold(config)
    _check_local(config)
    _check_newcomers(config)
    _check_tensor_parallel(config)
    _check_weights(config)
    _check_deterministic(config)


def _check_deterministic(config: "RunConfig") -> None:
    if not config.deterministic:
        return
    teacher = config.teacher if isinstance(config.teacher, TeacherConfig) else None
    asked = {
        "replay.max_policy_lag": (config.replay.max_policy_lag, 0),
        "learner.dtype": (config.learner.dtype, "float32"),
        "learner.matmul_precision": (config.learner.matmul_precision, "highest"),
        "learner.threads": (config.learner.threads or 1, 1),
        "student.replicas": (config.student.replicas, 1),
        "student.dtype": (config.student.dtype, "float32"),
        "student.threads": (config.student.threads or 1, 1),
    }
    if config.uses_teacher:
        asked |= {
            "teacher.type": (config.teacher.type, "model"),
            "teacher.replicas": (config.teacher.replicas, 1),
        }
    if teacher and config.uses_teacher:
        asked |= {
            "teacher.cache": (teacher.cache, True),
            "teacher.dtype": (teacher.dtype, "float32"),
            "teacher.threads": (teacher.threads or 1, 1),
        }
    wrong = [f"{key}={want}" for key, (found, want) in asked.items() if found != want]
    if wrong:
        raise ValueError(
            f"deterministic needs {', '.join(wrong).lower()}: set them, or leave deterministic out"
        )


def _check_negatives(config: "RunConfig") -> None:
    if config.negatives != NegativesConfig() and not config.learns_from_student:
        raise ValueError(
            f"negatives are settings of student responses, and objective.type="
            f"{config.objective.type} learns from none as it is set: leave them out"
        )


def _check_batch(config: "RunConfig") -> None:
    batch = config.learner.batch_size
    for key, divisor, why in (
        ("negatives.samples", config.negatives.samples, ", so that a step holds whole groups"),
        ("learner.ranks", config.learner.ranks, ""),
    ):
        if batch % divisor:
            raise ValueError(
                f"learner.batch_size ({batch}) must be a multiple of {key} ({divisor}){why}"
            )
    if config.replay.max_tuples < batch:
        raise ValueError(
            f"replay.max_tuples ({config.replay.max_tuples}) must hold at least one batch: "
            f"learner.batch_size is {batch}"
        )


def _check_local(config: "RunConfig") -> None:
    replicas = (config.learner.ranks, config.student.replicas, config.teacher.replicas)
    if config.cluster.local and max(replicas) > 1:
        raise ValueError(
            "cluster.local runs one actor of each role, and learner.ranks, student.replicas or "
            "teacher.replicas is larger; set cluster.local=false"
        )


def _check_newcomers(config: "RunConfig") -> None:
    """Check that samplers which are to join a running job can."""
    student = config.student
    if student.initial_replicas is None:
        return
    if student.initial_replicas > student.replicas:
        raise ValueError(
            f"student.initial_replicas ({student.initial_replicas}) is more than all samplers: "
            f"student.replicas is {student.replicas}"
        )
    if student.weight_transfer in ("nccl", "ipc"):
        raise ValueError(
            f"student.initial_replicas with student.weight_transfer={student.weight_transfer}: "
            "that transport is opened once, for the samplers there are; set it to object_store"
        )


def _check_tensor_parallel(config: "RunConfig") -> None:
    """Check that an engine which is split over GPUs gets as many."""
    for role, section in (("sampler", config.student), ("teacher", config.teacher)):
        split = getattr(section, "tensor_parallel", 1)
        gpus = getattr(config.cluster, role).gpus
        if split > 1 and gpus != split and not config.cluster.local:
            raise ValueError(
                f"{'student' if role == 'sampler' else role}.tensor_parallel={split} splits a "
                f"{role} over {split} GPUs, and cluster.{role}.gpus={gpus:g} gives it others; set "
                f"cluster.{role}.gpus={split}"
            )


def _check_weights(config: "RunConfig") -> None:
    """Check that what the learner trains can reach the samplers and be proved."""
    student = config.student
    if (student.dtype, config.learner.dtype) == ("bfloat16", "float32"):
        raise ValueError(
            "student.dtype=bfloat16 with learner.dtype=float32: the samplers would round away "
            "what the learner trained, and no push could be proved; set both to one format"
        )
    if student.weight_transfer not in ("nccl", "ipc"):
        return
    if config.learner.ranks > 1:
        raise ValueError(
            f"student.weight_transfer={student.weight_transfer} is driven by a learner of "
            f"one rank, and learner.ranks is {config.learner.ranks}; use object_store"
        )
    if config.negatives.type != "fresh":
        raise ValueError(
            f"student.weight_transfer={student.weight_transfer} cannot bring back the snapshot "
            f"that negatives.type={config.negatives.type} draws from; use object_store"
        )


def _check_teacher_can(config: "RunConfig") -> None:
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
    vocabulary = config.data.tokenizer_vocab
    if getattr(teacher, "make", None) and k is not None and k > vocabulary:
        raise ValueError(
            f"teacher.distribution_top_k ({k}) is more than the vocabulary of a made teacher, "
            f"data.tokenizer_vocab ({vocabulary}); lower it, or set it to null for all of them"
        )
    _check_distributions_fit(config, k)


def _check_distributions_fit(config: "RunConfig", k: int | None) -> None:
    """Check a batch's largest distributions against the queue, as far as sizes are known now."""
    made = config.data.tokenizer_vocab if config.student.make else 0
    tokens = max(
        config.student.sampling.max_new_tokens,
        config.teacher.sampling.max_new_tokens,
        config.data.max_response_tokens or 1,
    )
    nbytes = 8 * (k or made) * tokens * config.learner.batch_size
    if nbytes > config.replay.max_bytes:
        raise ValueError(
            f"a batch's teacher distributions may take {nbytes} bytes, more than replay.max_bytes "
            f"({config.replay.max_bytes}); lower teacher.distribution_top_k"
        )


def _check_drawn_as_scored(config: "RunConfig") -> None:
    """Check that importance weights divide by the probability with which responses were drawn."""
    objective = config.objective
    if not objective.importance_weighted:
        return
    asked: dict[str, tuple[object, object]] = {}
    if "student_response" in objective.needs:
        asked |= _plain_sampling("student", config.student.sampling)
    if "teacher_response" in objective.needs:
        asked["teacher.response"] = (config.teacher.response, "generate")
        asked |= _plain_sampling("teacher", config.teacher.sampling)
    for key, (found, want) in asked.items():
        if found != want:
            raise ValueError(
                f"objective.type={objective.type} weighs responses by the log-probabilities of the "
                f"models that draw them, at temperature 1 and top-p 1, and {key} is {found}; "
                f"set {key}={want}"
            )


def _plain_sampling(role: str, sampling: Sampling) -> dict[str, tuple[object, object]]:
    """Return what a role samples with, and what it would be for the model's own distribution."""
    return {
        f"{role}.sampling.temperature": (sampling.temperature, 1),
        f"{role}.sampling.top_p": (sampling.top_p, 1),
    }


def _check_gold(config: "RunConfig") -> None:
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
        state = "both are" if source.model else "neither is"
        raise ValueError(
            f"exactly one of {role}.model and {role}.make must be set, and {state}; "
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
