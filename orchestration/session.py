"""One run, from models on disk to `student/` and `summary.json`.

Both the main job and the SFT stages that make its models are sessions: what differs is the
objective, and with it which roles are started.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.prompts import PromptSource
from configs.run import RunConfig
from orchestration.assembly import Models, Roles, start_roles
from orchestration.examiner import Examiner
from orchestration.exporter import MetricsHub
from orchestration.launcher import Launcher
from orchestration.ledger import Ledger
from orchestration.lifecycle import StopRequest
from orchestration.model_card import write_model_card
from orchestration.pipeline import Parts, Pipeline
from orchestration.progress import Progress
from orchestration.recorder import Recorder
from orchestration.role_watch import RoleWatch
from orchestration.run_folder import RunFolder
from orchestration.weight_sync import WeightSync


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What sessions of one process share."""

    launcher: Launcher
    hub: MetricsHub
    progress: Progress
    stop: StopRequest


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a session starts from."""

    models: Models
    tokenizer: Any
    prompts: PromptSource
    """Opened and checked once; every session reads it from the start."""


class Session:
    """Runs one configuration in one run folder."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, inputs: Inputs, around: Surroundings
    ) -> None:
        """Open the ledger and rewind the data."""
        self.config = config
        self.folder = folder
        self.inputs = inputs
        self.around = around
        self.prompts = inputs.prompts
        self.prompts.seek({"epoch": 0, "ordinal": 0, "sample": 0})
        self.ledger = Ledger(folder.path / "events.jsonl")
        self.models = inputs.models
        self.fingerprint: str | None = None
        """The served teacher's; None: the teacher is a folder of this run."""
        self.recorder = Recorder(around.hub, around.progress, self.ledger, folder)
        around.hub.log_to(folder.path)
        around.hub.set("queue_capacity", config.replay.max_tuples)
        around.hub.set("policy_lag_limit", config.lag_bound)
        self.examiner = Examiner(config, self.prompts, inputs.tokenizer, folder, self.recorder)

    async def run(self) -> dict[str, Any]:
        """Start the roles, learn, evaluate, save; returns the summary.

        Raises the first error of any part, after every part has been stopped.
        """
        progress = self.around.progress
        progress.announce(
            f"starting {_named_counts(self.config)} "
            "(10 to 30 s; the first start on a machine compiles DeepSpeed's kernels, a minute more)"
        )
        roles = await start_roles(
            self.config, self.models, self.inputs.tokenizer, self.around.launcher
        )
        try:
            return await self._run_with(roles)
        finally:
            self.around.stop.on_first_signal(None)
            await roles.stop()
            self.ledger.close()

    async def _run_with(self, roles: Roles) -> dict[str, Any]:
        sync = await self._weight_sync(roles)
        pipeline = Pipeline(
            self.config,
            self._parts(roles, sync),
            lambda step: self.examiner.look(f"step-{step}", step, roles),
        )
        self.around.stop.on_first_signal(pipeline.stop)
        await self._warm_up(roles)
        if self.config.teacher.type == "openai" and roles.teachers:
            self.fingerprint = await roles.teachers[0].call("fingerprint")
            self.around.progress.announce(f"served teacher: fingerprint {self.fingerprint}")
        if self.config.uses_sampler:
            await sync.push()
        await self.examiner.look("before", 0, roles)
        watch = RoleWatch(self.around.hub, roles)
        clocks = await self._learn(pipeline, roles, watch)
        async with sync.newest(bring_back=False):
            await self.examiner.look("after", pipeline.step, roles)
        await self._save(roles, pipeline.step)
        self.ledger.check()
        summary = self._summary(pipeline.step, sync, clocks)
        summary["teacher_cache"] = watch.teacher_cache
        summary["tokens"] = watch.teacher_tokens
        self.folder.summary(summary)
        return summary

    async def _weight_sync(self, roles: Roles) -> WeightSync:
        """Ask the samplers which way weights reach them; it depends on their device."""
        if not roles.samplers or (await roles.samplers[0].call("transport")) == "object_store":
            return WeightSync(roles.learner, roles.samplers)
        return WeightSync(
            roles.learner,
            roles.samplers,
            transport=await roles.samplers[0].call("transport"),
            transfer=self.around.launcher.transfer_call(roles.samplers),
        )

    async def _warm_up(self, roles: Roles) -> None:
        """Generate once before the clock starts: engines do what they do only once."""
        await asyncio.gather(*(role.call("warm_up") for role in roles.engines()))

    async def _learn(
        self, pipeline: Pipeline, roles: Roles, watch: RoleWatch
    ) -> dict[str, dict[str, float]]:
        """Turn the loops; returns each role's busy and idle seconds in them."""
        self.around.progress.stage(self.config.name, self.config.learner.steps)
        await watch.restart()
        self.recorder.began()
        looking = asyncio.create_task(watch.run())
        try:
            await pipeline.run()
        except* Exception as group:  # noqa: BLE001  re-raised as the first of its errors
            raise _first(group) from None
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            self.around.progress.close()
        return await watch.look()

    def _parts(self, roles: Roles, sync: WeightSync) -> Parts:
        return Parts(
            prompts=self.prompts,
            samplers=roles.samplers,
            teachers=roles.teachers,
            offline=roles.offline,
            reference=roles.reference,
            queue=roles.queue,
            learner=roles.learner,
            sync=sync,
            ledger=self.ledger,
            recorder=self.recorder,
        )

    async def _save(self, roles: Roles, steps: int) -> None:
        """Write ``student/``: weights, configuration, tokenizer and model card."""
        self.folder.student.mkdir(exist_ok=True)
        await roles.learner.save_model(str(self.folder.student))
        self.inputs.tokenizer.save_pretrained(self.folder.student)
        write_model_card(self.folder.student, self.config, steps, self.examiner.scores)

    def _summary(
        self, step: int, sync: WeightSync, clocks: Mapping[str, Mapping[str, float]]
    ) -> dict[str, Any]:
        return {
            "recipe": self.config.name,
            "seed": self.config.seed,
            "steps": step,
            "objective": self.config.objective.type,
            "models": {"student": self.models.student, "teacher": self.models.teacher},
            "teacher_fingerprint": self.fingerprint,
            "wall_seconds": round(time.time() - self.folder.started, 1),
            "eval": {when: scores.rounded() for when, scores in self.examiner.scores.items()},
            "ledger": self.ledger.balance().as_dict(),
            "throughput": self.recorder.throughput(),
            "time": clocks,
            "weight_sync": sync.summary(),
            "logprob_drift": {"max": self.recorder.drift_max},
            "losses": self.recorder.losses,
            "skipped_rows": dict(self.prompts.skipped),
            # A part that dies ends the run: a run that comes here has restarted none.
            "restarts": {"sampler": 0, "teacher": 0, "learner": 0},
        }


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the error that ended the loops; the others followed from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _named_counts(config: RunConfig) -> str:
    parts = [f"{config.learner.ranks} learner rank(s)"]
    if config.uses_sampler:
        parts.append(f"{config.student.replicas} student sampler(s)")
    if config.uses_teacher:
        parts.append(f"{config.teacher.replicas} teacher server(s)")
    if config.draws_offline:
        parts.append("1 sampler of the initial student")
    if "reference_logprobs" in config.objective.needs:
        parts.append("1 scorer by the initial student")
    return ", ".join(parts)
