"""Takes back what a run wrote about steps that a resume undoes."""

import json
import math
from pathlib import Path

from orchestration.prompt_scores import SCORES_NAME

LOGS = ("metrics.jsonl", "samples.jsonl", SCORES_NAME)
"""Files of one line or more a step, in the order of steps."""


def rewind_logs(folder: Path, step: int) -> None:
    """Cut the logs in ``folder`` behind the last line of ``step``; torn lines go, too."""
    for name in LOGS:
        path = folder / name
        if path.exists():
            _cut(path, step)


def _cut(path: Path, step: int) -> None:
    """Shorten in place: whoever has the file open for appending goes on at its new end."""
    with path.open("rb+") as file:
        end = 0
        for line in file:
            if not line.endswith(b"\n") or _step_of(line) > step:
                break
            end += len(line)
        file.truncate(end)


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # no line of ours: whatever follows is not to be trusted
