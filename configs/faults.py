"""Failpoints: named places at which a test may make a process die, fail, hang or lie.

`DPKD_FAULT=role:point:nth:action` (several, separated by commas) arms them; without the variable
``failpoint`` costs one look at an empty tuple. ``nth`` counts the visits of one process, from 1;
``*`` means every visit, in restarted processes too. Roles are named with their replica
(``sampler-0``), or without it for all of a kind (``sampler``); the process that runs the pipeline
is ``driver``.
"""

import os
import signal
import time
from dataclasses import dataclass
from typing import Literal, get_args

from configs.errors import ConfigError

VARIABLE = "DPKD_FAULT"
ROLE_VARIABLE = "DPKD_ROLE"
Action = Literal["kill", "stop", "raise", "pause", "sleep", "nan", "truncate"]
"""``kill``: SIGKILL; ``stop``: SIGSTOP; ``raise``: an OSError (no space left); ``pause``: five
seconds; ``sleep``: an hour; ``nan`` and ``truncate``: returned to the failpoint, where a number or
a file is there to spoil."""

_SECONDS = {"pause": 5, "sleep": 3600}

POINTS: dict[str, str] = {
    "driver.issued": "prompts are in the ledger, nobody has them",
    "driver.leased": "a batch is leased",
    "driver.learned": "the optimizer has stepped, the queue does not know",
    "driver.acked": "the queue knows, the ledger does not",
    "driver.consumed": "the ledger knows, the samplers do not",
    "driver.pushed": "the samplers know, the slots are not free",
    "driver.checkpoint_begun": "an empty folder",
    "driver.checkpoint_filled": "the engine's files are written, nothing is flushed",
    "driver.checkpoint_sealed": "the manifest is flushed, the folder has its draft's name",
    "driver.checkpoint_renamed": "the folder has its name, LATEST names another",
    "driver.checkpoint_done": "all is in place, older ones are not removed",
    "sampler.generate": "prompts have arrived",
    "sampler.engine": "vLLM is at work",
    "sampler.generated": "responses are drawn, nobody has them",
    "sampler.load": "a push has arrived",
    "sampler.loaded": "its weights are loaded, not proved",
    "teacher.respond": "prompts have arrived",
    "teacher.judge": "responses have arrived",
    "teacher.judged": "tuples are made, nobody has them",
    "learner.forward": "a batch has arrived",
    "learner.gradient": "the gradient is there, the optimizer has not stepped",
    "learner.stepped": "the optimizer has stepped",
    "learner.publish": "weights are asked for",
    "learner.save": "a checkpoint is asked for",
    "learner.saved": "the engine's files are written",
    "queue.put": "tuples have arrived",
    "queue.lease": "a batch is asked for",
    "queue.ack": "a step's batch is acknowledged",
}
"""Every failpoint by ``role.point``, and where in a protocol it stands."""


@dataclass
class Fault:
    """One armed failpoint of this process."""

    role: str
    point: str
    nth: int | None
    """None: every visit."""
    action: Action
    visits: int = 0


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Return the faults that the variable's value names.

    Raises ConfigError for a failpoint or an action that does not exist.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def failpoint(point: str, detail: object = "") -> Action | None:
    """Act if this visit is armed; returns ``nan`` or ``truncate`` for the caller to act on.

    ``point`` is a key of ``POINTS``. With a ``detail``, only faults that name it are meant, behind
    a second dot, such as a uid in ``sampler.generate.0/7/0``.
    """
    if not _ARMED:
        return None
    name = f"{point}.{detail}" if detail else point
    visited = [fault for fault in _ARMED if fault.point == name and _is_here(fault.role)]
    for fault in visited:
        fault.visits += 1
    due = next((fault for fault in visited if fault.nth in (None, fault.visits)), None)
    return _act(due) if due else None


def is_armed() -> bool:
    """Whether any failpoint is: a caller may then name details that cost something."""
    return bool(_ARMED)


def of_restarted(text: str) -> str:
    """Return the part of the variable's value that a restarted process gets: the ``*`` ones."""
    return ",".join(part for part in text.split(",") if ":*:" in part)


def _parse(text: str) -> Fault:
    parts = text.split(":")
    if len(parts) != 4:
        raise ConfigError(f"{VARIABLE}: {text!r} is not role:point:nth:action")
    role, point, nth, action = parts
    kind = role.split("-")[0]
    name = f"{kind}.{point}"
    if not any(name == known or name.startswith(f"{known}.") for known in POINTS):
        known = ", ".join(key for key in POINTS if key.startswith(f"{kind}.")) or ", ".join(POINTS)
        raise ConfigError(f"{VARIABLE}: there is no failpoint {name}; there are {known}")
    if action not in get_args(Action):
        raise ConfigError(
            f"{VARIABLE}: {action!r} is no action; there are {', '.join(get_args(Action))}"
        )
    if nth != "*" and not (nth.isdigit() and int(nth) > 0):
        raise ConfigError(f"{VARIABLE}: {nth!r} is no count from 1, and not *")
    return Fault(role, name, None if nth == "*" else int(nth), action)  # type: ignore[arg-type]


def _is_here(role: str) -> bool:
    here = os.environ.get(ROLE_VARIABLE)
    # A process without a role is the driver, and with cluster.local every other role, too.
    return here is None or role in (here, here.split("-")[0])


def _act(fault: Fault) -> Action | None:
    if fault.action == "kill":
        _die()
    elif fault.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.action == "raise":
        raise OSError(28, f"injected at {fault.point}")
    elif fault.action in _SECONDS:
        time.sleep(_SECONDS[fault.action])
    else:
        return fault.action
    return None


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_ARMED = parse_faults(os.environ.get(VARIABLE, ""))
