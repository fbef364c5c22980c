"""Builds the parts of a run from its configuration: only those that the objective needs."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from actors.reference import ReferenceServer
from actors.student import StudentSampler
from actors.teacher import TeacherServer
from actors.vllm_environment import vllm_environment
from configs.run import RunConfig
from configs.student import StudentConfig
from configs.teacher import TeacherConfig
from orchestration.launcher import Gang, Launcher
from orchestration.learner_group import LearnerGroup
from orchestration.placement import node_address
from orchestration.replay import ReplayQueue
from orchestration.role_counts import initial_counts, role_counts
from orchestration.roles import Role

SAMPLER_CALLS = 8
"""Calls that a sampler takes in at once: those that are drawn, one behind them to keep its engine
full, and a push; where more come, they wait outside."""


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
    offline: Role | None = None
    """A sampler that keeps the initial weights, for the offline share of negatives."""
    reference: Role | None = None
    """Scores responses by the initial student."""
    gang: Gang | None = None
    """Places of the learner's ranks, where there are several."""
    apart: list[Role] = field(default_factory=list)
    """Samplers that are about to join, or leaving: nothing is asked of them any more, or yet."""

    def engines(self) -> list[Role]:
        """Every role that generates or scores."""
        extra = [role for role in (self.offline, self.reference) if role is not None]
        return [*self.samplers, *self.teachers, *extra]

    def all(self) -> list[Role]:
        """Every role, in the order in which they are stopped: consumers first."""
        return [*self.learner.ranks, *self.engines(), self.queue]

    async def stop(self) -> None:
        """Close every part, end its process, and give back its place."""
        await asyncio.gather(*(role.stop() for role in self.all()))
        if self.gang:
            self.gang.release()


async def start_roles(config: RunConfig, place: "Placing") -> Roles:
    """Place the roles and bring them up side by side; ``launcher.require`` was asked before."""
    counts = initial_counts(config)
    launcher = place.launcher
    replay = config.replay.model_copy(update={"max_policy_lag": config.lag_bound})
    gang = launcher.gang("learner", counts["learner"])
    roles = Roles(
        samplers=[place.sampler(f"sampler-{i}") for i in range(counts["sampler"])],
        teachers=[place.teacher(f"teacher-{i}") for i in range(counts["teacher"])],
        learner=LearnerGroup([place.learner(i, gang) for i in range(counts["learner"])]),
        queue=launcher.role("queue", partial(ReplayQueue, replay), asynchronous=True),
        offline=place.sampler("offline-0") if counts["offline"] else None,
        reference=place.reference("reference-0") if counts["reference"] else None,
        gang=gang,
    )
    try:
        timeout = config.cluster.start_timeout_seconds
        engines = roles.engines()
        await asyncio.gather(
            *(bring_up(role, timeout, warm=role in engines) for role in roles.all())
        )
        await roles.learner.start(timeout)
    except BaseException:
        await roles.stop()
        raise
    return roles


async def bring_up(role: Role, timeout: float, *, warm: bool = True) -> None:
    """Build a part, and have an engine do what it does only once, whatever others are at."""
    await role.call("build", timeout=timeout)
    await role.is_alive(timeout)  # it says where it is
    if warm:
        await role.call("warm_up", timeout=timeout)


@dataclass(frozen=True)
class Placing:
    """Places one role at a time; every part is built where it will live."""

    config: RunConfig
    models: Models
    tokenizer: Any
    launcher: Launcher
    threads: int
    """CPU threads of a role whose section names none."""

    @classmethod
    def of_a_run(
        cls, config: RunConfig, models: Models, tokenizer: Any, launcher: Launcher
    ) -> "Placing":
        """Share the machine's cores out evenly among the roles of a run."""
        share = launcher.cores // sum(role_counts(config).values())
        threads = 1 if config.deterministic else max(1, share)
        return cls(config, models, tokenizer, launcher, threads)

    def sampler(self, name: str) -> Role:
        """Place one student sampler."""
        config = self.config
        section = config.student.model_copy(update={"weight_transfer": config.weight_transfer})
        build = partial(
            StudentSampler,
            section,
            model=self.models.student,
            seed=config.seed,
            exit_on_engine_death=not config.cluster.local,
        )
        return self._engine(name, build, section, calls_at_once=SAMPLER_CALLS)

    def teacher(self, name: str) -> Role:
        """Place one teacher server."""
        section, config = self.config.teacher, self.config
        build = partial(
            TeacherServer,
            section,
            model=self.models.teacher,
            seed=config.seed,
            cache_folder=self._cache() if section.cache else None,
            needs=config.objective.needs,
            response=config.response_source,
            tokenizer=self.tokenizer,
            exit_on_engine_death=not config.cluster.local,
        )
        if isinstance(section, TeacherConfig):
            return self._engine(name, build, section)
        return self.launcher.role(name, build)

    def reference(self, name: str) -> Role:
        """Place the scorer by the initial student."""
        section = self.config.student
        build = partial(
            ReferenceServer,
            self.models.student,
            dtype=section.dtype,
            revision=section.revision if self.models.student == section.model else None,
            trust_remote_code=section.trust_remote_code,
            batch_tokens=self.config.learner.micro_batch_tokens,
            cache_folder=self._cache(),
        )
        return self._engine(name, build, section)

    def learner(self, index: int, gang: Gang | None) -> Role:
        """Place one learner rank, beside the others."""
        config = self.config
        build = partial(_build_learner, config, self.models.student, index)
        environment = {"OMP_NUM_THREADS": str(config.learner.threads or self.threads)}
        if config.cluster.joined(os.environ) is None:
            environment["MASTER_ADDR"] = "127.0.0.1"  # all ranks are on this machine
        if not config.cluster.learner.gpus:
            environment["DS_ACCELERATOR"] = "cpu"
        name = f"learner-{index}"
        return self.launcher.role(name, build, environment=environment, gang=gang)

    def _engine(
        self,
        name: str,
        build: Callable[[], Any],
        section: StudentConfig | TeacherConfig,
        *,
        calls_at_once: int = 1,
    ) -> Role:
        environment = vllm_environment(
            threads=section.threads or self.threads, kv_cache_gib=section.kv_cache_gib
        )
        return self.launcher.role(name, build, environment=environment, calls_at_once=calls_at_once)

    def _cache(self) -> Path:
        return self.config.cache.expanduser() / "teacher"


def _build_learner(config: RunConfig, model: str, rank: int) -> object:
    """Import DeepSpeed in the learner's process, not in the driver's, where it takes seconds."""
    from learner.worker import LearnerWorker

    return LearnerWorker(
        config,
        model=model,
        rank=rank,
        world_size=config.learner.ranks,
        address=None if config.cluster.local else node_address(),
    )
