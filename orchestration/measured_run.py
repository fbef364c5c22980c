"""What one finished run tells of its calls, and of its steps."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.timeline import TIMELINE_NAME

SKIPPED = 4
"""First calls of each kind, in which engines do what they do only once."""


class Measured:
    """What one finished run tells of its calls."""

    def __init__(self, folder: Path) -> None:
        events = json.loads((folder / TIMELINE_NAME).read_text(encoding="utf-8"))
        calls: defaultdict[str, list[float]] = defaultdict(list)
        for event in events:
            if event["ph"] == "X" and event["cat"] == "busy":
                calls[event["args"]["method"]].append(event["dur"] / 1e6)
        self._calls = calls
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line)["seconds"] for line in lines]
        self.step_seconds = statistics.median(steps[SKIPPED:])
        self.summary: Mapping[str, Any] = json.loads((folder / "summary.json").read_text())

    def median(self, method: str) -> float:
        """Return the median seconds of a method's calls; 0: it was not called."""
        calls = self._calls.get(method, [])
        return statistics.median(calls[SKIPPED:] or calls) if calls else 0.0
