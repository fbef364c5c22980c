"""The running roles of a session, and who looks after them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.prompts import PromptSource
from configs.run import RunConfig
from orchestration.assembly import Models, Placing, Roles, start_roles
from orchestration.checkpoints import Checkpoint, Checkpoints, checkpoint_folder
from orchestration.examiner import Examiner
from orchestration.exporter import MetricsHub
from orchestration.keeper import Keeper
from orchestration.launcher import Launcher
from orchestration.ledger import Ledger
from orchestration.lifecycle import StopRequest
from orchestration.parts import Parts
from orchestration.progress import Progress
from orchestration.recorder import Recorder
from orchestration.role_counts import role_counts
from orchestration.role_watch import RoleWatch
from orchestration.roles import Process
from orchestration.roster import Roster
from orchestration.run_folder import RunFolder
from orchestration.scale import wanted_samplers
from orchestration.supervisor import Supervisor
from orchestration.targets import TargetFile
from orchestration.weight_sync import WeightSync


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What sessions of one process share."""

    launcher: Launcher
    hub: MetricsHub
    progress: Progress
    stop: StopRequest
    targets: TargetFile


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a session starts from."""

    models: Models
    tokenizer: Any
    prompts: PromptSource
    """Opened and checked once; every session reads it from the start."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """Where a session writes down what it does."""

    folder: RunFolder
    ledger: Ledger
    recorder: Recorder
    examiner: Examiner


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Roles that are built, and what moves weights, keeps, watches and mends."""

    roles: Roles
    sync: WeightSync
    supervisor: Supervisor
    keeper: Keeper
    watch: RoleWatch
    roster: Roster
    targets: TargetFile

    async def stop(self) -> None:
        """End every role."""
        self.targets.show({})
        await self.roster.stop()
        await self.roles.stop()

    def parts(self, inputs: Inputs, books: Books) -> Parts:
        """Return what a pipeline turns on."""
        roles = self.roles
        return Parts(
            prompts=inputs.prompts,
            samplers=roles.samplers,
            teachers=roles.teachers,
            offline=roles.offline,
            reference=roles.reference,
            queue=roles.queue,
            learner=roles.learner,
            sync=self.sync,
            ledger=books.ledger,
            recorder=books.recorder,
            supervisor=self.supervisor,
        )


async def muster(
    config: RunConfig,
    inputs: Inputs,
    books: Books,
    around: Surroundings,
    *,
    facts: Mapping[str, Any],
    newest: Checkpoint | None,
) -> Crew:
    """Start the roles and whoever looks after them.

    ``facts`` are what checkpoints are to say of the run, ``newest`` the one that it goes on from.
    Raises the first error of any role, after all have been stopped.
    """
    place = Placing.of_a_run(config, inputs.models, inputs.tokenizer, around.launcher)
    roles = await start_roles(config, place)
    try:
        sync = await _weight_sync(roles, around.launcher)
    except BaseException:
        await roles.stop()
        raise
    keeper = Keeper(
        config.checkpoint,
        Checkpoints(checkpoint_folder(config, books.folder.path), keep=config.checkpoint.keep),
        books.folder.path,
        learner=roles.learner,
        ledger=books.ledger,
        recorder=books.recorder,
        examiner=books.examiner,
        hub=around.hub,
        announce=around.progress.announce,
        facts=facts,
        newest=newest,
    )

    def report(where: Mapping[str, Process | None]) -> None:
        books.folder.processes(where)
        around.targets.show(where)

    supervisor = Supervisor(
        config.supervision,
        roles,
        sync=sync,
        ledger=books.ledger,
        hub=around.hub,
        announce=around.progress.announce,
        report=report,
        start_timeout=config.cluster.start_timeout_seconds,
    )
    watch = RoleWatch(around.hub, roles, books.folder)
    return Crew(
        roles=roles,
        sync=sync,
        supervisor=supervisor,
        keeper=keeper,
        watch=watch,
        roster=_roster(config, books, around, watch, place=place, sync=sync),
        targets=around.targets,
    )


def _roster(
    config: RunConfig,
    books: Books,
    around: Surroundings,
    watch: RoleWatch,
    *,
    place: Placing,
    sync: WeightSync,
) -> Roster:
    """Want as many samplers as the recipe says, until somebody says otherwise."""
    count = role_counts(config)["sampler"]

    def wanted() -> int:
        return count and wanted_samplers(books.folder.path, count)

    return Roster(
        config.supervision,
        watch.roles,
        place=place.sampler,
        wanted=wanted,
        sync=sync,
        ledger=books.ledger,
        hub=around.hub,
        announce=around.progress.announce,
        part_with=watch.part_with,
        start_timeout=config.cluster.start_timeout_seconds,
    )


async def _weight_sync(roles: Roles, launcher: Launcher) -> WeightSync:
    """Ask the samplers which way weights reach them; it depends on their device."""
    if not roles.samplers:
        return WeightSync(roles.learner, roles.samplers)
    transport = await roles.samplers[0].call("transport")
    if transport == "object_store":
        return WeightSync(roles.learner, roles.samplers)
    return WeightSync(
        roles.learner,
        roles.samplers,
        transport=transport,
        transfer=launcher.transfer_call(roles.samplers),
    )
