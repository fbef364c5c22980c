"""A whole run in milliseconds: the real session, loops, queue, ledger and checkpoints, over parts
without models; and what is left of it when it is killed.
"""

import asyncio
import contextlib
import io
import shutil
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open

from configs import faults
from configs.monitoring import MonitoringConfig
from configs.run import RunConfig
from orchestration import checkpoints, crew, session
from orchestration.assembly import Models, Roles
from orchestration.crew import Inputs, Surroundings
from orchestration.exporter import MetricsHub
from orchestration.learner_group import LearnerGroup
from orchestration.lifecycle import StopRequest
from orchestration.local import LocalRole
from orchestration.progress import Progress
from orchestration.replay import ReplayQueue
from orchestration.resume import find_origin
from orchestration.roles import RoleDied
from orchestration.run_folder import RunFolder, run_path
from orchestration.session import Session
from orchestration.targets import TargetFile
from tests.builders import run_config
from tests.orchestration.chain_parts import ChainLearner, ChainSampler, ChainTeacher
from tests.orchestration.fake_parts import FakePrompts

ROWS = 7
"""Of an epoch: runs pass several."""


class Killed(BaseException):
    """The process that was here is no more."""


class MortalRole(LocalRole):
    """Dies alone when it is killed, with every call that it had taken; can be restarted."""

    _ended: asyncio.Event | None = None

    async def _run(self, method: str, args: tuple[Any, ...], returns: int) -> Any:
        self._ended = ended = self._ended or asyncio.Event()
        life = self.life
        work = asyncio.ensure_future(super()._run(method, args, returns))
        death = asyncio.ensure_future(ended.wait())
        # A call goes on when nobody waits for it any more, but never reaches another life.
        death.add_done_callback(lambda done: done.cancelled() or work.cancel())
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        work.add_done_callback(lambda _: death.cancel())
        await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.is_set() and not isinstance(work.exception(), Killed):
            return work.result()
        ended.set()
        raise RoleDied(f"{self.name} died", role=self.name, life=life)

    async def stop(self) -> None:
        with contextlib.suppress(RoleDied):
            await super().stop()

    def kill(self) -> None:
        assert self._ended
        self._ended.set()

    def restart(self) -> None:
        if self._ended:
            self._ended.set()
        self.life += 1
        self._ended = None


@dataclass
class SmallRun:
    """One run below ``root``, in as many lives as it takes."""

    root: Path
    patch: pytest.MonkeyPatch
    settings: dict[str, Any] = field(default_factory=dict)
    roles_die_alone: bool = False
    """Whether a kill in a part is that part's death, or that of the one process of them all."""
    learner_seconds: float = 0.0
    """Of a step."""
    said: io.StringIO = field(default_factory=io.StringIO)
    deaths: int = 0
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def config(self) -> RunConfig:
        sections = {
            "student": {"model": "s", "batch_size": 4},
            "learner": {"steps": 12, "batch_size": 2},
            "evaluation": {"generate": False},
            "checkpoint": {"every": 2},
            "supervision": {"backoff_seconds": 0, "max_restarts": 20},
            "output": str(self.root),
            "resume": "auto",
        }
        return run_config(**(sections | self.settings))

    @property
    def folder(self) -> Path:
        return run_path(self.config)

    def live(self, armed: str = "") -> bool:
        """Run until the end, or until a fault of ``armed`` kills the process; False: killed.

        What a killed life has left is what was on the disk at the kill.
        """
        deaths, left = self.deaths, self.root.with_name("left")
        self.patch.setattr(faults, "_ARMED", faults.parse_faults(armed))
        self.patch.setattr(faults, "_die", partial(self._die, left))
        self.patch.setattr(checkpoints, "_flush", lambda path: None)  # no power is cut here
        self.patch.setattr(crew, "start_roles", self._start_roles)
        self.patch.setattr(session, "facts_of", _facts)
        try:
            asyncio.run(_in_time(self._session()))
        except BaseException:
            if not left.exists():
                raise
            shutil.rmtree(self.root)
            left.rename(self.root)
            return False
        assert self.roles_die_alone or self.deaths == deaths, "a kill was survived"
        return True

    def student(self) -> tuple[str, list[str]]:
        """Return what the finished student is, and the uids that it is made of."""
        with safe_open(self.folder / "student" / "model.safetensors", framework="numpy") as file:
            return file.get_tensor("digest").tobytes().decode(), file.metadata()["learned"].split()

    async def _session(self) -> None:
        """Do what ``orchestration.job`` does."""
        self._loop = asyncio.get_running_loop()
        config, progress = self.config, Progress(self.said)
        announce = progress.announce
        origin = find_origin(config, run_path(config), announce)
        folder = RunFolder(config, continues=bool(origin and origin.same_run))
        around = Surroundings(
            launcher=SimpleNamespace(cores=2),  # type: ignore[arg-type]
            hub=_hub(),
            progress=progress,
            stop=StopRequest(announce),
            targets=TargetFile(config, None),
        )
        inputs = Inputs(
            models=Models(student="s", teacher="t"),
            tokenizer=_Tokenizer(),
            prompts=FakePrompts(ROWS),  # type: ignore[arg-type]
        )
        await Session(config, folder, inputs, around, origin).run()

    def _die(self, left: Path) -> None:
        self.deaths += 1
        if not self.roles_die_alone:
            self._in_loop(partial(self._keep_disk, left))
        raise Killed

    def _keep_disk(self, left: Path) -> None:
        if not left.exists():
            shutil.copytree(self.root, left)

    def _in_loop(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the loop's thread, which writes all but the learner's drafts."""
        assert self._loop
        if threading.current_thread() is threading.main_thread():
            work()
        else:
            done: Future[None] = Future()
            self._loop.call_soon_threadsafe(lambda: done.set_result(work()))
            done.result(10)

    async def _start_roles(self, config: RunConfig, *_: object) -> Roles:
        replay = config.replay.model_copy(update={"max_policy_lag": config.lag_bound})
        learner = partial(ChainLearner, self.learner_seconds)
        roles = Roles(
            samplers=[self._role("sampler-0", ChainSampler)],
            teachers=[self._role("teacher-0", ChainTeacher)],
            learner=LearnerGroup([self._role("learner-0", learner)]),
            queue=self._role("queue", partial(ReplayQueue, replay)),
        )
        await asyncio.gather(*(role.call("build") for role in roles.all()))
        await roles.learner.start(10)
        return roles

    def _role(self, name: str, build: Any) -> LocalRole:
        kind = MortalRole if self.roles_die_alone else LocalRole
        return kind(name, build, thread=_thread(name), timeout=10)


async def _in_time(work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(20):
        await work


class _Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        """Nothing to save."""


def _facts(config: RunConfig, prompts: FakePrompts, *_: object) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "data": [prompts.fingerprint, len(prompts)],
        "tokenizer": "words",
        "models.student": "s",
        "models.teacher": "t",
    }


@cache
def _hub() -> MetricsHub:
    return MetricsHub(MonitoringConfig(port=0))


@cache
def _thread(name: str) -> ThreadPoolExecutor:
    """A thread for each part, as actors have, and for one run after the other."""
    return ThreadPoolExecutor(1, name)
