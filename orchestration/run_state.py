"""How a run stands, for whoever looks from outside.

A run that is killed writes no last word: its `status.json` says ``running`` for ever. Whether that
is so is told by its lock, which beats while it lives, on whatever machine that is.
"""

import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from orchestration.run_folder import STATUS_NAME, write_json
from orchestration.run_lock import holder_of


def state_of(folder: Path, status: Mapping[str, Any]) -> str:
    """Return the state of the run in ``folder``, whose status was read just now.

    ``crashed``: it says ``running`` and nobody runs it; ``unknown``: it says nothing.
    """
    if not _only_says_so(folder, status):
        return status.get("state", "unknown")
    # It may have come to its end between the two looks.
    again = read_status(folder) or status
    return "crashed" if _only_says_so(folder, again) else again.get("state", "unknown")


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return what a run folder's status.json holds; None: nothing that can be read."""
    try:
        status = json.loads((folder / STATUS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def write_down_a_crash(folder: Path, announce: Callable[[str], None]) -> None:
    """Have the status of the run in ``folder`` say what befell it; call it with the lock held.

    The lock that told is gone from now on, and the run may be kept under another name.
    """
    status = read_status(folder)
    if status is None or status.get("state") != "running":
        return
    announce(f"the run in {folder} was killed: it left no last word at step {status.get('step')}")
    with contextlib.suppress(OSError):  # of a disk that is full the run will hear
        write_json(folder / STATUS_NAME, status | {"state": "crashed", "reason": "it was killed"})


def _only_says_so(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether a status says ``running`` of a run that nobody runs."""
    if status.get("state") != "running":
        return False
    if holder := holder_of(folder):
        return not holder.is_alive
    # A stage of a run, or a copied folder: without a lock of its own.
    pid, is_here = status.get("pid"), status.get("host") == socket.gethostname()
    return is_here and isinstance(pid, int) and not psutil.pid_exists(pid)
