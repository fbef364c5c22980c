"""Builds the parts of a run from its configuration: only those that the objective needs."""

import asyncio
import os
from dataclasses import dataclass
from functools import partial

from actors.student import StudentSampler
from actors.teacher import TeacherServer
from actors.vllm_environment import vllm_environment
from configs.run import RunConfig
from orchestration.launcher import Launcher
from orchestration.learner_group import LearnerGroup
from orchestration.replay import ReplayQueue
from orchestration.roles import Role


@dataclass(frozen=True, kw_only=True)
class Models:
    """Folders (or hub names) of the models that a run starts from."""

    student: str
    teacher: str | None = None


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The running parts."""

    samplers: list[Role]
    teachers: list[Role]
    learner: LearnerGroup
    queue: Role

    def all(self) -> list[Role]:
        """Every role, in the order in which they are stopped: consumers first."""
        return [*self.learner.ranks, *self.samplers, *self.teachers, self.queue]

    async def stop(self) -> None:
        """Close every part and end its process."""
        await asyncio.gather(*(role.stop() for role in self.all()))


def role_counts(config: RunConfig) -> dict[str, int]:
    """How many actors of each role the objective needs."""
    return {
        "sampler": config.student.replicas if config.uses_student else 0,
        "teacher": config.teacher.replicas if config.uses_teacher else 0,
        "learner": config.learner.ranks,
    }


async def start_roles(config: RunConfig, models: Models, launcher: Launcher) -> Roles:
    """Place the roles and bring them up side by side; ``launcher.require`` was asked before."""
    counts = role_counts(config)
    threads = max(1, launcher.cores // sum(counts.values()))
    roles = Roles(
        samplers=[
            sampler_role(config, models, launcher, threads, i) for i in range(counts["sampler"])
        ],
        teachers=[
            teacher_role(config, models, launcher, threads, i) for i in range(counts["teacher"])
        ],
        learner=LearnerGroup(
            [_learner(config, models, launcher, threads, i) for i in range(counts["learner"])]
        ),
        queue=launcher.role("queue", partial(ReplayQueue, config.replay), asynchronous=True),
    )
    try:
        timeout = config.cluster.start_timeout_seconds
        await asyncio.gather(*(role.call("build", timeout=timeout) for role in roles.all()))
        await roles.learner.start(timeout)
    except BaseException:
        await roles.stop()
        raise
    return roles


def sampler_role(
    config: RunConfig, models: Models, launcher: Launcher, threads: int, index: int
) -> Role:
    """Place one student sampler."""
    section = config.student
    if section.weight_transfer == "auto" and (config.learner.ranks > 1 or config.cluster.local):
        # vLLM's CUDA transports are driven by a learner of one rank, from a process of its own.
        section = section.model_copy(update={"weight_transfer": "object_store"})
    build = partial(
        StudentSampler,
        section,
        model=models.student,
        seed=config.seed,
        exit_on_engine_death=not config.cluster.local,
    )
    environment = vllm_environment(
        threads=section.threads or threads, kv_cache_gib=section.kv_cache_gib
    )
    return launcher.role(f"sampler-{index}", build, environment=environment)


def teacher_role(
    config: RunConfig, models: Models, launcher: Launcher, threads: int, index: int
) -> Role:
    """Place one teacher server."""
    section = config.teacher
    assert models.teacher is not None, "an objective that uses a teacher has one"
    build = partial(
        TeacherServer,
        section,
        model=models.teacher,
        seed=config.seed,
        cache_folder=config.cache.expanduser() / "teacher" if section.cache else None,
        needs_logprobs="teacher_logprobs" in config.objective.needs,
        exit_on_engine_death=not config.cluster.local,
    )
    environment = vllm_environment(
        threads=section.threads or threads, kv_cache_gib=section.kv_cache_gib
    )
    return launcher.role(f"teacher-{index}", build, environment=environment)


def _learner(
    config: RunConfig, models: Models, launcher: Launcher, threads: int, index: int
) -> Role:
    build = partial(_build_learner, config, models.student, index)
    environment = {"OMP_NUM_THREADS": str(config.learner.threads or threads)}
    if config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        environment["MASTER_ADDR"] = "127.0.0.1"  # all ranks are on this machine
    if not config.cluster.learner.gpus:
        environment["DS_ACCELERATOR"] = "cpu"
    return launcher.role(f"learner-{index}", build, environment=environment)


def _build_learner(config: RunConfig, model: str, rank: int) -> object:
    """Import DeepSpeed in the learner's process, not in the driver's, where it takes seconds."""
    from learner.worker import LearnerWorker

    return LearnerWorker(config, model=model, rank=rank, world_size=config.learner.ranks)
