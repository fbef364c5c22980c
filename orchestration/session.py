"""One run, from models on disk to `student/` and `summary.json`.

Both the main job and the SFT stages that make its models are sessions: what differs is the
objective, and with it which roles are started.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.prompts import PromptSource
from configs.errors import CheckpointError
from configs.run import RunConfig
from orchestration.assembly import Models, Roles, start_roles
from orchestration.checkpoints import Checkpoints, checkpoint_folder
from orchestration.examiner import Examiner
from orchestration.exporter import MetricsHub
from orchestration.keeper import Keeper
from orchestration.launcher import Launcher
from orchestration.ledger import Ledger
from orchestration.lifecycle import StopRequest
from orchestration.model_card import write_model_card
from orchestration.pipeline import Parts, Pipeline
from orchestration.progress import Progress
from orchestration.recorder import Recorder
from orchestration.recovery import Recovery
from orchestration.resume import Origin, check_facts, facts_of
from orchestration.role_watch import RoleWatch
from orchestration.roles import RoleDied, RoleError
from orchestration.run_folder import RunFolder
from orchestration.supervisor import Supervisor
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


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The running roles, and who looks after them."""

    roles: Roles
    sync: WeightSync
    supervisor: Supervisor
    keeper: Keeper
    watch: RoleWatch


class Session:
    """Runs one configuration in one run folder."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        inputs: Inputs,
        around: Surroundings,
        origin: Origin | None = None,
    ) -> None:
        """Open the ledger, and the data behind what it has seen; ``origin`` is gone on from."""
        self.config = config
        self.folder = folder
        self.inputs = inputs
        self.around = around
        self.origin = origin
        self.prompts = inputs.prompts
        self.ledger = Ledger(folder.path / "events.jsonl")
        if origin and not origin.same_run:
            self.ledger.carried(origin.checkpoint.state["account"])
        self.prompts.seek({"epoch": 0, "ordinal": 0, "sample": 0})
        if self.ledger.last_issued:
            self.prompts.seek_behind(self.ledger.last_issued)
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
        facts = await self._facts()
        self.around.progress.announce(f"starting {_named_counts(self.config)} (10 to 30 s)")
        roles = await start_roles(
            self.config, self.models, self.inputs.tokenizer, self.around.launcher
        )
        try:
            return await self._run_with(await self._crew(roles, facts))
        finally:
            self.around.stop.on_first_signal(None)
            await roles.stop()
            self.ledger.close()

    async def _facts(self) -> dict[str, Any]:
        """Return what checkpoints are to say of this run; refuse one that says another thing."""
        if not self.config.checkpoint.every and not self.origin:
            return {}
        facts = await asyncio.to_thread(
            facts_of, self.config, self.prompts, self.inputs.tokenizer, self.models
        )
        self._check(facts)
        return facts

    def _check(self, facts: Mapping[str, Any]) -> None:
        if self.origin:
            check_facts(self.origin.checkpoint.facts, facts, self.config.checkpoint.accept)

    async def _crew(self, roles: Roles, facts: dict[str, Any]) -> Crew:
        sync = await self._weight_sync(roles)
        hub, announce = self.around.hub, self.around.progress.announce
        home = checkpoint_folder(self.config, self.folder.path)
        keeper = Keeper(
            self.config.checkpoint,
            Checkpoints(home, keep=self.config.checkpoint.keep),
            self.folder.path,
            learner=roles.learner,
            ledger=self.ledger,
            recorder=self.recorder,
            examiner=self.examiner,
            hub=hub,
            announce=announce,
            facts=facts,
            newest=self.origin.checkpoint if self.origin else None,
        )
        supervisor = Supervisor(
            self.config.supervision,
            roles,
            sync=sync,
            ledger=self.ledger,
            hub=hub,
            announce=announce,
            report=self.folder.processes,
            start_timeout=self.config.cluster.start_timeout_seconds,
        )
        watch = RoleWatch(hub, roles)
        return Crew(roles=roles, sync=sync, supervisor=supervisor, keeper=keeper, watch=watch)

    async def _run_with(self, crew: Crew) -> dict[str, Any]:
        tending = [asyncio.create_task(look()) for look in (crew.watch.run, crew.supervisor.watch)]
        try:
            await self._warm_up(crew)
            pipeline = self._pipeline(crew, await self._bring_up(crew))
            pipeline, clocks = await self._to_the_end(crew, pipeline)
        finally:
            for task in tending:
                task.cancel()
            await asyncio.gather(*tending, return_exceptions=True)
        self.ledger.check()
        summary = self._summary(pipeline.step, crew, clocks)
        self.folder.summary(summary)
        return summary

    async def _bring_up(self, crew: Crew) -> int:
        """Bring every part to where the run begins, or went on to; returns the step."""
        every = self.config.push_every
        if self.config.uses_sampler and not (self.origin and every):
            # The initial weights, which samplers may keep.
            await crew.supervisor.persist(crew.sync.push)
        if self.origin is None:
            await crew.supervisor.persist(lambda: self.examiner.look("before", 0, crew.roles))
            return 0
        step = await crew.keeper.restore()
        self.around.progress.announce(f"going on from {self.origin.checkpoint.path}, step {step}")
        if self.config.uses_sampler and every:
            await crew.supervisor.persist(crew.sync.push)
        return step

    async def _to_the_end(
        self, crew: Crew, pipeline: Pipeline
    ) -> tuple[Pipeline, dict[str, dict[str, float]]]:
        """Learn, evaluate and save, by as many pipelines as it takes.

        Returns the last one, and each role's busy and idle seconds.
        """
        recovery = Recovery(
            config=self.config,
            roles=crew.roles,
            sync=crew.sync,
            keeper=crew.keeper,
            supervisor=crew.supervisor,
            pipeline=lambda step: self._pipeline(crew, step),
        )
        await crew.watch.restart()
        while True:
            try:
                await self._learn(pipeline)
                clocks = await crew.supervisor.persist(crew.watch.look)
                await self._finish(crew, pipeline.step)
            except RoleDied as death:
                pipeline = await recovery.after(death, pipeline)
                continue
            except RoleError:
                await pipeline.settle()
                with contextlib.suppress(RoleError, CheckpointError):
                    await self._keep(crew, pipeline.step)
                raise
            return pipeline, clocks

    async def _learn(self, pipeline: Pipeline) -> None:
        """Turn the loops of one pipeline."""
        self.around.progress.stage(self.config.name, self.config.learner.steps)
        self.around.stop.on_first_signal(pipeline.stop)
        if self.around.stop.signal:
            pipeline.stop()
        self.recorder.began()
        try:
            await pipeline.run()
        except* Exception as group:  # noqa: BLE001  re-raised as the first of its errors
            raise _first(group) from None
        finally:
            self.around.progress.close()

    async def _finish(self, crew: Crew, step: int) -> None:
        """Keep, evaluate and save what was learned."""
        await self._keep(crew, step)

        async def look() -> None:
            async with crew.sync.newest(bring_back=False):
                await self.examiner.look("after", step, crew.roles)

        await crew.supervisor.persist(look)
        await self._save(crew.roles, step)

    async def _keep(self, crew: Crew, step: int) -> None:
        """Write the last checkpoint, where one may be (see ``RunConfig.checkpoint_every``)."""
        newest = crew.keeper.newest
        aligned = step % (self.config.push_every or 1) == 0
        if self.config.checkpoint.every and aligned and not (newest and newest.step == step):
            await crew.keeper.keep(step)

    def _pipeline(self, crew: Crew, step: int) -> Pipeline:
        return Pipeline(
            self.config,
            self._parts(crew),
            evaluate=lambda step: self.examiner.look(f"step-{step}", step, crew.roles),
            keep=crew.keeper.keep,
            step=step,
            unfinished=self.ledger.in_flight,
        )

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

    async def _warm_up(self, crew: Crew) -> None:
        """Generate once before the clock starts: engines do what they do only once."""
        await asyncio.gather(*(role.call("warm_up") for role in crew.roles.engines()))
        if self.config.teacher.type == "openai" and crew.roles.teachers:
            self.fingerprint = await crew.roles.teachers[0].call("fingerprint")
            self.around.progress.announce(f"served teacher: fingerprint {self.fingerprint}")
            crew.keeper.facts = {**crew.keeper.facts, "models.teacher": self.fingerprint}
            if crew.keeper.facts.get("config"):
                self._check(crew.keeper.facts)

    def _parts(self, crew: Crew) -> Parts:
        roles = crew.roles
        return Parts(
            prompts=self.prompts,
            samplers=roles.samplers,
            teachers=roles.teachers,
            offline=roles.offline,
            reference=roles.reference,
            queue=roles.queue,
            learner=roles.learner,
            sync=crew.sync,
            ledger=self.ledger,
            recorder=self.recorder,
            supervisor=crew.supervisor,
        )

    async def _save(self, roles: Roles, steps: int) -> None:
        """Write ``student/``: weights, configuration, tokenizer and model card."""
        self.folder.student.mkdir(exist_ok=True)
        await roles.learner.save_model(str(self.folder.student))
        self.inputs.tokenizer.save_pretrained(self.folder.student)
        write_model_card(self.folder.student, self.config, steps, self.examiner.scores)

    def _summary(
        self, step: int, crew: Crew, clocks: Mapping[str, Mapping[str, float]]
    ) -> dict[str, Any]:
        restarts = crew.supervisor.restarts
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
            "weight_sync": crew.sync.summary(),
            "logprob_drift": {"max": self.recorder.drift_max},
            "losses": self.recorder.losses,
            "skipped_rows": dict(self.prompts.skipped),
            "restarts": {
                role: restarts[role] for role in ("sampler", "teacher", "learner", "queue")
            },
            "resumed_at": self.origin.checkpoint.step if self.origin else None,
            "teacher_cache": crew.watch.teacher_cache,
            "tokens": crew.watch.teacher_tokens,
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
