"""Writes the run's checkpoints, and brings a run back to one."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.checkpoint import CheckpointConfig
from configs.errors import CheckpointError
from orchestration.checkpoints import Checkpoint, Checkpoints
from orchestration.examiner import Examiner
from orchestration.exporter import MetricsHub
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger
from orchestration.recorder import Recorder
from orchestration.rewind import rewind_logs


@dataclass
class Keeper:
    """Knows everything that belongs to a checkpoint: engine, ledger, totals, scores."""

    config: CheckpointConfig
    checkpoints: Checkpoints
    run: Path
    learner: LearnerGroup
    ledger: Ledger
    recorder: Recorder
    examiner: Examiner
    hub: MetricsHub
    announce: Callable[[str], None]
    facts: Mapping[str, Any]
    """What a run that goes on from the checkpoint must agree in."""
    newest: Checkpoint | None = None
    """What a learner that died in this run is restored from; None: the initial student."""
    _failures: int = 0

    async def keep(self, step: int) -> None:
        """Write a checkpoint of ``step``, or say why not and go on.

        Raises CheckpointError after ``max_failures`` in a row.
        """
        start = time.monotonic()
        state = {"step": step, **self.ledger.mark(), **self.recorder.state()}
        state["scores"] = self.examiner.state()
        try:
            path = await self.checkpoints.write(step, self._fill, state=state, facts=self.facts)
        except CheckpointError as error:
            self._failed(error)
            return
        self._failures = 0
        self.newest = Checkpoint(path=path, step=step, facts=self.facts, state=state)
        self.ledger.checkpointed(step)
        self.hub.observe("checkpoint_seconds", time.monotonic() - start)
        self.hub.set("checkpoint_timestamp", time.time())

    async def restore(self) -> int:
        """Bring learner, ledger, totals and logs to the newest checkpoint; returns its step.

        The learner was just started: without a checkpoint it holds the initial student.
        """
        step = self.newest.step if self.newest else 0
        if self.newest:
            await self.learner.load(str(self.newest.path), step)
            self.checkpoints.forget_after(step)
        self.ledger.roll_back(step)
        rewind_logs(self.run, step)
        self.recorder.restore(self.newest.state if self.newest else {})
        self.examiner.restore(self.newest.state["scores"] if self.newest else None)
        return step

    async def _fill(self, folder: Path) -> None:
        await self.learner.save(str(folder))

    def _failed(self, error: CheckpointError) -> None:
        self._failures += 1
        self.hub.inc("checkpoint_failures")
        if self._failures >= self.config.max_failures:
            raise error
        self.announce(f"{error}. The run goes on ({self._failures} in a row)")
