"""A whole run small enough for a test: real Ray, vLLM and DeepSpeed, models of a few thousand
parameters, a handful of steps.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.hosts import Host

ROOT = Path(__file__).parents[2]
TINY = (
    "data.embedded_rows=200",
    "data.validation_rows=8",
    "data.tokenizer_vocab=400",
    "teacher.make.hidden_size=32",
    "teacher.make.layers=2",
    "teacher.make.heads=1",
    "teacher.make.context=256",
    "student.make.context=256",
    "teacher.warm_start.steps=20",
    "teacher.sampling.max_new_tokens=16",
    "student.make.hidden_size=32",
    "student.make.layers=1",
    "student.make.heads=1",
    "student.warm_start.steps=10",
    "student.sampling.max_new_tokens=16",
    "student.batch_size=8",
    "learner.batch_size=8",
    "learner.steps=6",
    "monitoring.port=0",
    "monitoring.role_port=0",
    "monitoring.log_every=1",
    "monitoring.report=false",
)


class TinyRun:
    """One run in a process of its own, and everything that it started."""

    def __init__(
        self,
        home: Path,
        *overrides: str,
        name: str = "tiny",
        recipe: str = "quickstart",
        tiny: Sequence[str] = TINY,
        log: str | None = None,
        on: Host | None = None,
    ) -> None:
        """Start it, its driver ``on`` a host or here."""
        self.folder = home / "runs" / name
        self.command = [
            *(sys.executable, "-m", "orchestration.run", recipe, *tiny),
            *(f"name={name}", f"output={home / 'runs'}", f"cache={home / 'cache'}", *overrides),
        ]
        self.log = home / f"{log or name}.log"
        self._output = self.log.open("w")
        self.process = subprocess.Popen(
            on.command(*self.command) if on else self.command,
            cwd=ROOT,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )
        self._family: dict[int, psutil.Process] = {}

    def wait(self, look: Callable[[], None] = lambda: None, timeout: float = 600) -> int:
        """Wait for the end, looking again and again; returns the exit code.

        Whatever goes wrong meanwhile, the run does not outlive the wait.
        """
        deadline = time.monotonic() + timeout
        try:
            while self.process.poll() is None:
                assert time.monotonic() < deadline, f"no end after {timeout} s:\n{self.tail()}"
                self._remember_family()
                look()
                time.sleep(0.1)
        finally:
            self._end()
            self._output.close()
        return self.process.returncode

    def family(self) -> list[psutil.Process]:
        """Processes of this run that are alive."""
        return [process for process in self._family.values() if process.is_running()]

    def survivors(self, within: float = 10) -> list[str]:
        """Command lines of processes of this run that are alive so many seconds after its end."""
        _, alive = psutil.wait_procs(list(self._family.values()), timeout=within)
        return [" ".join(process.cmdline()) for process in alive if process.is_running()]

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text())

    def step(self) -> int:
        status = self.folder / "status.json"
        return self.json("status.json")["step"] if status.exists() else 0

    def tail(self) -> str:
        return self.log.read_text()[-3000:]

    def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(15)

    def _remember_family(self) -> None:
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._family.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
