"""One run, from models on disk to `student/` and `summary.json`.

Both the main job and the SFT stages that make its models are sessions: what differs is the
objective, and with it which roles are started.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from configs.errors import CheckpointError, DependencyError
from configs.run import RunConfig
from orchestration.assembly import Roles
from orchestration.crew import Books, Crew, Inputs, Surroundings, muster
from orchestration.examiner import Examiner
from orchestration.ledger import Ledger
from orchestration.model_card import write_model_card
from orchestration.pipeline import Pipeline
from orchestration.recorder import Recorder
from orchestration.recovery import Recovery
from orchestration.resume import Origin, check_facts, facts_of
from orchestration.roles import RoleDied, RoleError
from orchestration.run_folder import RunFolder
from orchestration.versions import versions


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
        self.inputs = inputs
        self.around = around
        self.origin = origin
        self.books = _open_books(config, folder, inputs, around)
        if origin and not origin.same_run:
            self.books.ledger.carried(origin.checkpoint.state["account"])
        step = origin.checkpoint.step if origin else 0
        self.books.ledger.run_started(step=step, versions=versions())
        inputs.prompts.seek({"epoch": 0, "ordinal": 0, "sample": 0})
        if self.books.ledger.last_issued:
            inputs.prompts.seek_behind(self.books.ledger.last_issued)
        self.fingerprint: str | None = None
        """The served teacher's; None: the teacher is a folder of this run."""
        around.hub.log_to(folder.path)
        around.hub.set("queue_capacity", config.replay.max_tuples)
        around.hub.set("policy_lag_limit", config.lag_bound)

    async def run(self) -> dict[str, Any]:
        """Start the roles, learn, evaluate, save; returns the summary.

        Raises the first error of any part, after every part has been stopped.
        """
        with self.books.ledger:
            facts = await self._facts()
            self.around.progress.announce(f"starting {_named_counts(self.config)} (10 to 30 s)")
            newest = self.origin.checkpoint if self.origin else None
            crew = await muster(
                self.config, self.inputs, self.books, self.around, facts=facts, newest=newest
            )
            try:
                return await self._run_with(crew)
            except asyncio.CancelledError:
                if self.around.stop.signal:
                    self._say_how_it_ended()
                raise
            finally:
                self.around.stop.on_first_signal(None)
                await crew.stop()

    async def _facts(self) -> dict[str, Any]:
        """Return what checkpoints are to say of this run; refuse one that says another thing."""
        if not self.config.checkpoint.every and not self.origin:
            return {}
        facts = await asyncio.to_thread(
            facts_of, self.config, self.inputs.prompts, self.inputs.tokenizer, self.inputs.models
        )
        self._check(facts)
        return facts

    def _check(self, facts: Mapping[str, Any]) -> None:
        if self.origin:
            check_facts(self.origin.checkpoint.facts, facts, self.config.checkpoint.accept)

    async def _run_with(self, crew: Crew) -> dict[str, Any]:
        looks = (crew.watch.run, crew.supervisor.watch, crew.roster.watch)
        tending = [asyncio.create_task(self._tend(look)) for look in looks]
        try:
            await self._identify_teacher(crew)
            pipeline = self._pipeline(crew, await self._bring_up(crew))
            pipeline, clocks = await self._to_the_end(crew, pipeline)
            await crew.watch.last_look()
        finally:
            for task in tending:
                task.cancel()
            await asyncio.gather(*tending, return_exceptions=True)
        self.books.ledger.check()
        state = "stopped" if self.around.stop.signal else "succeeded"
        self.books.ledger.run_finished(state=state, step=pipeline.step)
        summary = self._summary(pipeline.step, crew, clocks)
        self.books.folder.summary(summary)
        self._say_how_it_ended(pipeline.step)
        return summary

    def _say_how_it_ended(self, step: int | None = None) -> None:
        """Leave the last word, before parts and displays take their time to end: whoever signals
        may lose patience, as `ray job stop` does after three seconds.
        """
        stop = self.around.stop
        state, reason = ("stopped", stop.signal.name) if stop.signal else ("succeeded", "")
        self.books.folder.status(state, step=step, reason=reason, exit_code=stop.exit_code)

    async def _tend(self, look: Callable[[], Awaitable[None]]) -> None:
        """Look after the parts until cancelled; where that fails, the run goes on without."""
        try:
            await look()
        except Exception as error:
            self.around.progress.announce(f"nobody looks after the parts any more: {error!r}")
            raise

    async def _bring_up(self, crew: Crew) -> int:
        """Bring every part to where the run begins, or went on to; returns the step."""
        every = self.config.push_every
        if self.config.uses_sampler and not (self.origin and every):
            # The initial weights, which samplers may keep.
            await crew.supervisor.persist(crew.sync.push)
        if self.origin is None:
            await crew.supervisor.persist(lambda: self.books.examiner.look("before", 0, crew.roles))
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
            except (RoleError, DependencyError):
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
        self.books.recorder.began(pipeline.step)
        try:
            await pipeline.run()
        except* Exception as group:  # noqa: BLE001  re-raised as the first of its errors
            raise _first(group) from None
        finally:
            self.around.progress.close()

    async def _finish(self, crew: Crew, step: int) -> None:
        """Keep, save and evaluate what was learned."""
        await self._keep(crew, step)
        await self._save(crew.roles, step)
        stop = self.around.stop
        stop.on_first_signal(lambda: self._say_how_it_ended(step))
        if stop.signal:
            self._say_how_it_ended(step)

        async def look() -> None:
            async with crew.sync.newest(bring_back=False):
                await self.books.examiner.look("after", step, crew.roles)

        try:
            await crew.supervisor.persist(look)
        except RoleDied as death:
            if not stop.signal:
                raise
            # To go back to a checkpoint would be to replace what was just saved by an older one.
            self.around.progress.announce(f"stopped without a last evaluation: {death}")
        self._write_card(step)

    async def _keep(self, crew: Crew, step: int) -> None:
        """Write the last checkpoint, where one may be (see ``RunConfig.checkpoint_every``)."""
        newest = crew.keeper.newest
        aligned = step % (self.config.push_every or 1) == 0
        if self.config.checkpoint.every and aligned and not (newest and newest.step == step):
            await crew.keeper.keep(step)

    def _pipeline(self, crew: Crew, step: int) -> Pipeline:
        return Pipeline(
            self.config,
            crew.parts(self.inputs, self.books),
            evaluate=lambda step: self.books.examiner.look(f"step-{step}", step, crew.roles),
            keep=crew.keeper.keep,
            regroup=crew.roster.change,
            step=step,
            unfinished=self.books.ledger.in_flight,
        )

    async def _identify_teacher(self, crew: Crew) -> None:
        """Look at whom a served teacher really is."""
        if self.config.teacher.type == "openai" and crew.roles.teachers:
            self.fingerprint = await crew.roles.teachers[0].call("fingerprint")
            self.around.progress.announce(f"served teacher: fingerprint {self.fingerprint}")
            crew.keeper.facts = {**crew.keeper.facts, "models.teacher": self.fingerprint}
            if crew.keeper.facts.get("config"):
                self._check(crew.keeper.facts)

    async def _save(self, roles: Roles, steps: int) -> None:
        """Write ``student/``: weights, configuration, tokenizer and model card."""
        self.books.folder.student.mkdir(exist_ok=True)
        await roles.learner.save_model(str(self.books.folder.student))
        self.inputs.tokenizer.save_pretrained(self.books.folder.student)
        self._write_card(steps)

    def _write_card(self, steps: int) -> None:
        """Write what goes with the student, with the scores that there are."""
        write_model_card(self.books.folder.student, self.config, steps, self.books.examiner.scores)

    def _summary(
        self, step: int, crew: Crew, clocks: Mapping[str, Mapping[str, float]]
    ) -> dict[str, Any]:
        restarts = crew.supervisor.restarts
        return {
            "recipe": self.config.name,
            "seed": self.config.seed,
            "steps": step,
            "objective": self.config.objective.type,
            "models": {
                "student": self.inputs.models.student,
                "teacher": self.inputs.models.teacher,
            },
            "teacher_fingerprint": self.fingerprint,
            "wall_seconds": round(time.time() - self.books.folder.started, 1),
            "eval": {when: scores.rounded() for when, scores in self.books.examiner.scores.items()},
            "ledger": self.books.ledger.balance().as_dict(),
            "throughput": self.books.recorder.throughput(),
            "time": clocks,
            "weight_sync": crew.sync.summary(),
            "logprob_drift": {"max": self.books.recorder.drift_max},
            "losses": self.books.recorder.losses,
            "skipped_rows": dict(self.inputs.prompts.skipped),
            "restarts": {
                role: restarts[role] for role in ("sampler", "teacher", "learner", "queue")
            },
            "resumed_at": self.origin.checkpoint.step if self.origin else None,
            "teacher_cache": crew.watch.teacher_cache,
            "tokens": crew.watch.teacher_tokens,
        }


def _open_books(
    config: RunConfig, folder: RunFolder, inputs: Inputs, around: Surroundings
) -> Books:
    ledger = Ledger(folder.path / "events.jsonl")
    recorder = Recorder(around.hub, around.progress, ledger, folder)
    examiner = Examiner(config, inputs.prompts, inputs.tokenizer, folder, recorder)
    return Books(folder=folder, ledger=ledger, recorder=recorder, examiner=examiner)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the error that ended the loops; the others followed from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _named_counts(config: RunConfig) -> str:
    parts = [f"{config.learner.ranks} learner rank(s)"]
    if config.uses_sampler:
        count, first = config.student.replicas, config.student.initial_replicas
        parts.append(f"{f'{first} of {count}' if first else count} student sampler(s)")
    if config.uses_teacher:
        parts.append(f"{config.teacher.replicas} teacher server(s)")
    if config.draws_offline:
        parts.append("1 sampler of the initial student")
    if "reference_logprobs" in config.objective.needs:
        parts.append("1 scorer by the initial student")
    return ", ".join(parts)
