"""Noise added to a comparison's finished students: `evaluate --noise`, once for each seed."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs.plan import NoiseConfig
from orchestration.comparison_progress import read_summary
from orchestration.comparison_runs import PlannedRun
from orchestration.comparison_schedule import last_line
from orchestration.processes import Processes


async def run_noise_study(
    noise: NoiseConfig,
    runs: Sequence[PlannedRun],
    processes: Processes,
    announce: Callable[[str], None],
) -> bool:
    """Measure what is not measured yet, of the finished ``runs``, one at a time.

    Returns whether all went well; stops early when ``processes`` was stopped by a signal.
    """
    well = True
    for run in (run for run in runs if run.method == noise.method):
        answer = _answer(run)
        if processes.signal or _is_measured(answer, run, noise):
            continue
        answer.parent.mkdir(exist_ok=True)
        draft = answer.with_suffix(".part")
        log = run.log.with_name(f"{run.name}-noise.log")
        processes.start(run.name, _command(noise, run), log, answer=draft)
        _, code = await processes.next()
        if code == 0:
            draft.replace(answer)
            announce(f"{run.name}: measured with noise")
        elif code is not None:
            well = False
            announce(f"{run.name}: noise failed, exit code {code}: {last_line(log)} (log: {log})")
    return well


def read_noise(noise: NoiseConfig, runs: Sequence[PlannedRun]) -> list[list[dict[str, float]]]:
    """Return for each measured model its scores at every sigma, with the key ``sigma``."""
    answers = (_answer(run) for run in runs if run.method == noise.method)
    return [json.loads(path.read_text())["noise"] for path in answers if path.exists()]


def _answer(run: PlannedRun) -> Path:
    return run.home / "noise" / f"{run.name}.json"


def _is_measured(answer: Path, run: PlannedRun, noise: NoiseConfig) -> bool:
    """Whether the file is of these sigmas, and younger than the student."""
    if (
        not answer.exists()
        or answer.stat().st_mtime < (run.folder / "summary.json").stat().st_mtime
    ):
        return False
    return [point["sigma"] for point in json.loads(answer.read_text())["noise"]] == list(
        noise.sigmas
    )


def _command(noise: NoiseConfig, run: PlannedRun) -> list[str]:
    """Return the command that measures on the run's own validation rows, beside its teacher."""
    from orchestration.inputs import with_data  # brings transformers

    data = with_data(run.config()).data
    teacher: Any = read_summary(run).get("models", {}).get("teacher")
    return [
        *(sys.executable, "-m", "orchestration.evaluate", str(run.folder / "student")),
        *(str(data.train), "--rows", str(data.validation_rows)),
        *(("--teacher", teacher) if teacher else ()),
        *("--noise", ",".join(map(str, noise.sigmas))),
        f"data.validation={data.validation or 'null'}",
    ]
