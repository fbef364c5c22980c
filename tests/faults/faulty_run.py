"""Runs that are made to fail, and what every one of them must show afterwards."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from configs.faults import VARIABLE
from orchestration.ledger import read_events
from tests.e2e.tiny import ROOT, TinyRun

QUICK = (
    "evaluation.samples=1",
    "checkpoint.every=4",
    "supervision.backoff_seconds=0.2",
    "supervision.health_every_seconds=1",
    "supervision.health_timeout_seconds=10",
)
"""Settings under which faults are frequent and noticed soon."""


class Outcome(NamedTuple):
    """One line of the table of `make test-faults`."""

    fault: str
    injected: str
    recovered_seconds: float | None
    """From the fault to the next step that was learned; None: not measured."""
    lost: int
    twice: int


class FaultyRun(TinyRun):
    """A tiny run with armed failpoints."""

    def __init__(
        self, home: Path, *overrides: str, faults: str = "", name: str = "run", **rest: Any
    ) -> None:
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = faults
        try:
            super().__init__(home, *QUICK, *overrides, name=name, **rest)
        finally:
            del os.environ[VARIABLE]
            if before:
                os.environ[VARIABLE] = before

    def at_step(self, step: int, act: Callable[[], None]) -> Callable[[], None]:
        """Return, for ``wait``, what acts once when ``step`` steps are made."""
        done: list[bool] = []

        def look() -> None:
            if not done and self.step() >= step:
                done.append(True)
                act()

        return look

    def outcome(self, fault: str, injected: str, *, restarted: str = "") -> Outcome:
        """Count what was lost and what was applied twice, by the ledger alone.

        Of a finished run: what is still in flight then is lost.
        """
        issued: set[str] = set()
        applied: Counter[str] = Counter()
        dropped: set[str] = set()
        fell = rose = None
        for event in read_events(self.folder / "events.jsonl"):
            uids = event.get("uids", ())
            if event["event"] == "issued":
                issued |= set(uids)
            elif event["event"] == "consumed":
                applied.update(uids)
                rose = rose or (event["time"] if fell else None)
            elif event["event"] == "rolled_back":
                applied.subtract(uids)
            elif event["event"] == "dropped":
                dropped |= set(uids)
            elif event["event"] == "restarted" and event["role"] == restarted and not fell:
                fell, rose = event["time"] - event["seconds"], None
        consumed = {uid for uid, count in applied.items() if count > 0}
        twice = sum(count > 1 for count in applied.values()) + len(consumed & dropped)
        lost = len(issued - consumed - dropped)
        seconds = round(rose - fell, 1) if fell and rose else None
        return Outcome(fault, injected, seconds, lost, twice)

    def newest_checkpoint(self) -> Path:
        home = self.folder / "checkpoints"
        return home / (home / "LATEST").read_text().strip()

    def losses(self) -> list[tuple[int, str]]:
        """Return step and loss of every line of metrics.jsonl, every bit of it."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [(line["step"], line["loss"].hex()) for line in map(json.loads, lines)]

    def student(self) -> str:
        """Return the sha256 of the finished weights."""
        weights = (self.folder / "student" / "model.safetensors").read_bytes()
        return hashlib.sha256(weights).hexdigest()

    def verify(self) -> None:
        """Fail unless `python -m orchestration.verify` finds that everything holds."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.verify", str(self.folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def pid_of(self, role: str) -> int | None:
        """Return the process of a role, once it has said where it runs."""
        path = self.folder / "processes.json"
        where = json.loads(path.read_text()).get(role) if path.exists() else None
        return where and where["pid"]
