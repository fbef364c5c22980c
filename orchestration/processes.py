"""Commands side by side, each in a process of its own, which a signal to this one ends cleanly."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FINISH_SECONDS = 60.0
"""What a run gets to finish its step and save, before it is told to stop at once."""
STOP_SECONDS = 30.0
"""What it gets to stop at once, before it is killed."""


class Processes:
    """Runs commands; on a signal no more are started, and those that run are ended, by pid.

    A child gets a session of its own, so that Ctrl-C reaches it by way of this process alone:
    SIGTERM, a second one after ``FINISH_SECONDS`` or at the next Ctrl-C, then SIGKILL.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Give every command this environment; None: this process's."""
        self.signal: signal.Signals | None = None
        """What ended the work; None: nothing has."""
        self._environment = dict(environment if environment is not None else os.environ)
        self._tasks: dict[asyncio.Task[int], str] = {}

    @property
    def running(self) -> list[str]:
        """Names of the commands under way."""
        return list(self._tasks.values())

    def start(
        self, name: str, command: Sequence[str], log: Path, *, answer: Path | None = None
    ) -> None:
        """Start a command; what it prints goes to ``log``, its standard output to ``answer``."""
        self._tasks[asyncio.create_task(self._run(command, log, answer or log))] = name

    async def next(self) -> tuple[str, int | None]:
        """Wait for the next command that ends: its name and exit code, None where it was ended."""
        ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        task = ended.pop()
        name = self._tasks.pop(task)
        return name, None if task.cancelled() else task.result()

    def __enter__(self) -> Self:
        """Take the signals over; needs a running event loop."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._stop, number)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _stop(self, number: signal.Signals) -> None:
        self.signal = self.signal or number
        for task in self._tasks:
            task.cancel()

    async def _run(self, command: Sequence[str], log: Path, answer: Path) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors, answer.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors if answer == log else output,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            )
            try:
                return await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """End one process; a further cancellation goes on to the next, harder signal."""
    for number, patience in (
        (signal.SIGTERM, FINISH_SECONDS),
        (signal.SIGTERM, STOP_SECONDS),
        (signal.SIGKILL, STOP_SECONDS),
    ):
        if process.returncode is None:
            process.send_signal(number)
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(process.wait(), patience)
