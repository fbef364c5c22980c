"""`timeline.json`: who did what when, in the Trace Event Format that Perfetto and Chrome open."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestration.busy_clock import Span

TIMELINE_NAME = "timeline.json"
DRIVER = "driver"
_COLOURS = {True: "thread_state_running", False: "thread_state_sleeping"}
"""Chrome's own names; Perfetto has colours of its own."""


class Timeline:
    """Writes spans as they become known; a run that goes on adds to the file of its folder.

    A list in JSON, one event a line. Of a killed run its end is missing, which the viewers allow.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / TIMELINE_NAME
        kept = _events_of(path)
        self._rows = {event["args"]["name"]: event["pid"] for event in kept if event["ph"] == "M"}
        draft = path.with_suffix(".new")  # what is there is not lost, whenever this is killed
        self._file = draft.open("w", encoding="utf-8")
        self._first = True
        self._write(kept)
        draft.replace(path)

    def spans(self, name: str, spans: Iterable[Span]) -> None:
        """Add what a part did, and what it waited for."""
        row = self._row(name)
        self._write(
            {
                "name": span.what if span.busy else f"waits for {span.what}",
                "cat": "busy" if span.busy else "idle",
                "ph": "X",
                "pid": row,
                "tid": 0,
                "ts": _microseconds(span.start),
                "dur": _microseconds(span.seconds),
                "cname": _COLOURS[span.busy],
                "args": {"method": span.method},
            }
            for span in spans
        )

    def levels(self, when: float, levels: Mapping[str, float]) -> None:
        """Add numbers that are drawn as curves below the spans, as of Unix time ``when``."""
        row = self._row(DRIVER)
        self._write(
            {
                "name": name,
                "ph": "C",
                "pid": row,
                "tid": 0,
                "ts": _microseconds(when),
                "args": {"value": value},
            }
            for name, value in levels.items()
            if math.isfinite(value)
        )

    def close(self) -> None:
        """End the list; may be called twice."""
        if not self._file.closed:
            self._file.write("[]\n" if self._first else "\n]\n")
            self._file.close()

    def _row(self, name: str) -> int:
        if name not in self._rows:
            self._rows[name] = row = len(self._rows) + 1
            self._write(
                [{"name": "process_name", "ph": "M", "pid": row, "tid": 0, "args": {"name": name}}]
            )
        return self._rows[name]

    def _write(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            self._file.write(("[\n" if self._first else ",\n") + json.dumps(event))
            self._first = False
        self._file.flush()


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _events_of(path: Path) -> list[dict[str, Any]]:
    """Return the events of an earlier life of the run; one cut off by its death is left out."""
    events: list[dict[str, Any]] = []
    if not path.exists():
        return events
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line.rstrip(","))
        except ValueError:  # a bracket, or half an event
            continue
        if isinstance(event, dict):
            events.append(event)
    return events
