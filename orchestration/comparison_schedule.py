"""Makes the runs of a comparison that are not done: several at one time, makers of models first.

The first run of a seed makes the student that the seed's other runs start from, and the first
run of all the teacher, where it is shared. Until it has succeeded, no other that needs the same
model starts; where it failed, the next one stands in for it.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.plan import PlanConfig
from orchestration.comparison_progress import Progress, read_summary
from orchestration.comparison_runs import PlannedRun
from orchestration.processes import Processes


def child_environment(plan: PlanConfig) -> dict[str, str]:
    """Return the environment of a comparison's commands: one thread each when they are local."""
    threads = {"OMP_NUM_THREADS": "1"} if plan.local else {}
    return {**threads, **os.environ}


class Schedule:
    """Runs what is pending, and says of every run how it ended."""

    def __init__(
        self, plan: PlanConfig, runs: Sequence[PlannedRun], announce: Callable[[str], None]
    ) -> None:
        """See which runs are done already."""
        self._plan = plan
        self._runs = runs
        self._announce = announce
        self._progress = Progress(runs)
        self._done = self._progress.done()
        self._pending = [run for run in runs if run not in self._done]
        self._active: dict[str, PlannedRun] = {}
        self._started: dict[str, float] = {}
        self.failed: list[PlannedRun] = []
        """Runs that ended otherwise than with success."""

    async def run(self, processes: Processes) -> None:
        """Make every pending run; a failed one does not keep the others from starting.

        Returns early when ``processes`` was stopped by a signal.
        """
        while self._active or (self._pending and not processes.signal):
            if not processes.signal:
                self._start_what_may(processes)
            name, code = await processes.next()
            self._ended(self._active.pop(name), code)

    def _start_what_may(self, processes: Processes) -> None:
        teacher = self._progress.teacher()
        while len(self._active) < self._plan.parallel:
            run = next((run for run in self._pending if self._may_start(run, teacher)), None)
            if run is None:
                return
            self._pending.remove(run)
            self._active[run.name] = run
            self._started[run.name] = time.monotonic()
            processes.start(run.name, run.command(teacher), run.log)

    def _may_start(self, run: PlannedRun, teacher: str | None) -> bool:
        """Whether the models that it shares are made, or nobody else is about to make them."""
        siblings = [other for other in self._active.values() if other.seed == run.seed]
        student = not siblings or any(other.seed == run.seed for other in self._done)
        makers = [other for other in self._active.values() if other.shares_teacher]
        return student and (not run.shares_teacher or teacher is not None or not makers)

    def _ended(self, run: PlannedRun, code: int | None) -> None:
        minutes = (time.monotonic() - self._started[run.name]) / 60
        if code == 0:
            self._done.append(run)
            self._say(f"{run.name}: {minutes:.1f} min, {_scores(run)}{self._remaining()}")
        elif code is None:
            self._announce(f"{run.name}: stopped after {minutes:.1f} min")
        else:
            self.failed.append(run)
            self._say(
                f"{run.name}: failed after {minutes:.1f} min, exit code {code}: "
                f"{last_line(run.log)} (all of it: {run.log})"
            )

    def _say(self, text: str) -> None:
        ended = len(self._done) + len(self.failed)
        self._announce(f"[{ended}/{len(self._runs)}] {text}")

    def _remaining(self) -> str:
        """Say how long the rest will take, if it goes on as it went."""
        left = len(self._pending) + len(self._active)
        if not left:
            return ""
        seconds = [read_summary(run)["wall_seconds"] for run in self._done]
        rest = left * sum(seconds) / len(seconds) / min(self._plan.parallel, left)
        return f"; about {rest / 60:.0f} min to go" if rest >= 60 else "; under a minute to go"


def last_line(log: Path) -> str:
    """Return the last line that a command printed: its error, where it ended with one."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _scores(run: PlannedRun) -> str:
    after = read_summary(run)["eval"].get("after", {})
    names = {"rouge_l": "sampled", "greedy_rouge_l": "greedy"}
    found = [f"{after[key]:.1f} {how}" for key, how in names.items() if key in after]
    return f"Rouge-L {', '.join(found)}" if found else "no text scores"
