"""Reads a run folder into ``Evidence``, whatever is missing, torn or garbled in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, DataError, DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.account import Event
from orchestration.checkpoints import (
    Checkpoint,
    Checkpoints,
    checkpoint_folder,
    open_checkpoint,
)
from orchestration.evidence import Evidence, fold
from orchestration.ledger import read_events
from orchestration.run_folder import STATUS_NAME
from orchestration.run_state import state_of

_KEYS = {
    **dict.fromkeys(("issued", "reissued", "redrawn"), ("uids",)),
    **dict.fromkeys(("consumed", "rolled_back"), ("step", "uids")),
    "dropped": ("reason", "uids"),
    "carried": ("account",),
}
"""What an event of the ledger must have, beside its name."""


def gather(folder: Path) -> Evidence:
    """Read the run folder ``folder``, of a run that is over or goes on.

    Raises ConfigError where there is no run.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{folder} is no run folder: it has no config.yaml; give the folder of a run, such as "
            "runs/quickstart"
        )
    unreadable: list[str] = []
    # Of a run that goes on, what follows from the ledger is read first: the ledger is never behind.
    status = _json(folder / STATUS_NAME, unreadable)
    state = state_of(folder, status if isinstance(status, dict) else {})
    settings = _settings(folder / "config.yaml", unreadable)
    home = checkpoint_folder(settings, folder) if settings else folder / "checkpoints"
    checkpoints, damaged = _checkpoints(home)
    may_lack = state != "succeeded"
    metrics = read_lines(folder / "metrics.jsonl", unreadable, may_lack=may_lack)
    events = _events(folder / "events.jsonl", unreadable, may_lack=may_lack)
    account, refused = fold(events)
    return Evidence(
        folder=folder,
        state=state,
        settings=settings,
        summary=_json(folder / "summary.json", unreadable, may_lack=may_lack),
        home=home,
        checkpoints=checkpoints,
        damaged=damaged,
        metrics=metrics,
        events=events,
        account=account,
        refused=refused,
        unreadable=unreadable,
    )


def _settings(path: Path, unreadable: list[str]) -> RunConfig | None:
    try:
        return load(str(path))
    except DpkdError as error:
        unreadable.append(str(error))
        return None


def _checkpoints(home: Path) -> tuple[list[Checkpoint], list[str]]:
    sound, damaged = [], []
    for path in Checkpoints(home, keep=1).newest_first():
        try:
            sound.append(open_checkpoint(path))
        except DataError as error:
            if path.exists():  # else a run that goes on has removed it just now
                damaged.append(str(error))
    return sound, damaged


def _json(path: Path, unreadable: list[str], *, may_lack: bool = False) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        unreadable += [] if may_lack else [f"{path.name} is missing"]
    except (OSError, ValueError) as error:
        unreadable.append(f"{path.name} cannot be read ({error})")
    return None


def read_lines(path: Path, unreadable: list[str], *, may_lack: bool) -> list[Mapping[str, Any]]:
    """Return the objects of a file of lines; a dying process may leave the last one torn."""
    found: list[Mapping[str, Any]] = []
    try:
        *lines, _torn = path.read_text(encoding="utf-8").split("\n")
        for line in lines:
            value = json.loads(line)
            if not isinstance(value, dict) or not isinstance(value.get("step"), int):
                raise ValueError("not an object with a step")
            found.append(value)
    except FileNotFoundError:
        unreadable += [] if may_lack else [f"{path.name} is missing"]
    except (OSError, ValueError) as error:
        unreadable.append(f"{path.name}, line {len(found) + 1}: cannot be read ({error})")
    return found


def _events(path: Path, unreadable: list[str], *, may_lack: bool) -> list[Event]:
    """Return the ledger up to the first line that is none of it."""
    found: list[Event] = []
    try:
        for event in read_events(path):
            lacks = [key for key in _KEYS.get(event["event"], ()) if key not in event]
            if lacks or not isinstance(event.get("step", 0), int):
                what = f"{path}, line {len(found) + 1}: not a whole {event['event']!r} event"
                raise DataError(what)
            found.append(event)
    except FileNotFoundError:
        unreadable += [] if may_lack else [f"{path.name} is missing"]
    except (OSError, UnicodeDecodeError, DataError) as error:
        unreadable.append(str(error))
    return found
