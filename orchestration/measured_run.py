"""What one finished run tells of its calls, and of its steps."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.gaps import SKIPPED, Call
from orchestration.timeline import TIMELINE_NAME


class Measured:
    """The calls of a run with a timeline, its steps' seconds, its summary."""

    def __init__(self, folder: Path) -> None:
        events = json.loads((folder / TIMELINE_NAME).read_text(encoding="utf-8"))
        self.calls = [_call(e) for e in events if e["ph"] == "X" and e["cat"] == "busy"]
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line)["seconds"] for line in lines]
        self.step_seconds = statistics.median(steps[SKIPPED:])
        self.summary: Mapping[str, Any] = json.loads((folder / "summary.json").read_text())


def _call(event: Mapping[str, Any]) -> Call:
    start = event["ts"] / 1e6
    return Call(event["args"]["method"], start, start + event["dur"] / 1e6)
