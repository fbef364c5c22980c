"""Measures what calls cost: by short runs of the recipe's own parts, on this machine."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from configs.agreement import check_agreement
from configs.errors import ConfigError, DependencyError
from configs.load import dump
from configs.run import RunConfig
from orchestration.costs import Costs
from orchestration.fitting import AT_ONCE, fit
from orchestration.measured_run import Measured
from orchestration.processes import Processes

STEPS = 30
"""Steps of a calibration run: enough for a median, the first few left out."""


def calibrate(
    config: RunConfig,
    folder: Path,
    announce: Callable[[str], None],
    *,
    cores: float,
    rounds: int,
) -> Costs:
    """Make the runs that the recipe allows, ``rounds`` times in turns, and fit the costs.

    Logs and run folders stay in ``folder``. Raises ConfigError before the first run where there is
    none to begin with, DependencyError where one fails.
    """
    kinds = allowed(calibrations(config), announce)
    seen: dict[str, list[Measured]] = {kind: [] for kind in kinds}
    began, total = monotonic(), rounds * len(kinds)
    for done, kind in enumerate(list(kinds) * rounds):
        each, left = kinds[kind], ""
        if done:
            minutes = (monotonic() - began) / done * (total - done) / 60
            left = f"; about {minutes:.1f} min left"
        announce(f"calibration {done + 1} of {total}: {STEPS} steps, {_named(each)}{left}")
        seen[kind].append(measure(each, f"calibration-{kind}", folder))
    return fit(kinds, seen, cores=cores)


def calibrations(config: RunConfig) -> dict[str, RunConfig]:
    """Return the runs that tell the costs, with one part of each kind.

    In lockstep with a whole and with half a batch a call; then overlapped, and in lockstep with two
    samplers that draw at the same time, which tell how parts slow each other.
    """
    batch = config.learner.batch_size
    half = max(1, batch // 2)
    return {
        "whole": _short(config, batch),
        "half": _short(config, half),
        "overlapped": _short(config, batch, lag=1),
        "abreast": _short(config, half, samplers=2),
    }


def allowed(kinds: dict[str, RunConfig], announce: Callable[[str], None]) -> dict[str, RunConfig]:
    """Return the runs that the recipe's rules allow, and say which they do not.

    A recipe with ``deterministic`` or ``cluster.local`` has no parts of which several could work at
    the same time: then it tells less of crowding, or nothing, and has no need of more. Raises
    ConfigError where even one part of each kind in lockstep is against a rule.
    """
    found = dict(kinds)
    for kind, config in kinds.items():
        try:
            check_agreement(_bare(config, kind, Path()))
        except ValueError as error:
            if kind not in AT_ONCE:
                raise ConfigError(f"the recipe cannot be calibrated: {error}") from None
            announce(f"not calibrated: {_named(config)}, which the recipe rules out ({error})")
            del found[kind]
    if not any(kind in found for kind in AT_ONCE):
        announce("how parts slow each other on shared cores is not known then, and counted as 0")
    return found


def measure(config: RunConfig, name: str, folder: Path) -> Measured:
    """Run a configuration as a calibration, with nothing but its loops."""
    return Measured(run_quietly(_bare(config, name, folder), folder))


def _short(config: RunConfig, per_call: int, *, lag: int = 0, samplers: int = 1) -> RunConfig:
    """Return the recipe with one part of each kind, or two samplers, for ``STEPS`` steps."""
    return config.model_copy(
        update={
            "student": config.student.model_copy(
                update={"replicas": samplers, "initial_replicas": None, "batch_size": per_call}
            ),
            "teacher": config.teacher.model_copy(update={"replicas": 1}),
            "replay": config.replay.model_copy(update={"max_policy_lag": lag}),
            "learner": config.learner.model_copy(update={"ranks": 1, "steps": STEPS}),
        }
    )


def _named(config: RunConfig) -> str:
    how = "overlapped" if config.replay.max_policy_lag else "in lockstep"
    who = "two samplers" if config.student.replicas > 1 else "one sampler"
    return f"{who}, {how}, {config.student.batch_size} prompts a call"


def _bare(config: RunConfig, name: str, folder: Path) -> RunConfig:
    """Return the recipe as a calibration runs it: nothing but its loops."""
    monitoring = {"port": 0, "role_port": 0, "timeline": True, "report": False, "progress": False}
    return config.model_copy(
        update={
            "name": name,
            "output": folder,
            "existing": "replace",
            "resume": "never",
            "evaluation": config.evaluation.model_copy(update={"every": 0, "generate": False}),
            "checkpoint": config.checkpoint.model_copy(update={"every": 0}),
            "monitoring": config.monitoring.model_copy(update=monitoring),
        }
    )


def run_quietly(config: RunConfig, folder: Path) -> Path:
    """Run a configuration in a process of its own; returns its run folder.

    Raises DependencyError with the last line of its log where it fails.
    """
    recipe, log = folder / f"{config.name}.yaml", folder / f"{config.name}.log"
    recipe.write_text(dump(config), encoding="utf-8")
    code = asyncio.run(_ended([sys.executable, "-m", "orchestration.run", str(recipe)], log))
    if code is None:
        raise KeyboardInterrupt
    if code:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise DependencyError(
            f"the run for a calibration failed: {last[-1] if last else ''}; see {log}"
        )
    return folder / config.name


async def _ended(command: list[str], log: Path) -> int | None:
    """Return the exit code of a command; None: a signal to this process ended it, cleanly."""
    with Processes() as processes:
        processes.start("calibration", command, log)
        _, code = await processes.next()
    return None if processes.signal else code
