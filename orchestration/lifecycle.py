"""Signals: once means finish the step and stop, twice means stop at once."""

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Listens for SIGINT and SIGTERM while a run goes on; exit code 128 + the signal's number."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.signal: signal.Signals | None = None
        self._announce = announce
        self._finish_step: Callable[[], None] | None = None
        self._task: asyncio.Task[object] | None = None

    @property
    def exit_code(self) -> int:
        """The process's exit code: 130 for SIGINT, 143 for SIGTERM, 0 for none."""
        return 128 + self.signal if self.signal else 0

    def on_first_signal(self, finish_step: Callable[[], None] | None) -> None:
        """From now on the first signal calls ``finish_step``; None: it stops the run at once."""
        self._finish_step = finish_step

    def __enter__(self) -> Self:
        """Take the signals over for the running task."""
        self._task = asyncio.current_task()
        self.take()
        return self

    def take(self) -> None:
        """Take the signals (again): `ray.init` puts a SIGTERM handler of its own in our place."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._handle, number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _handle(self, number: signal.Signals) -> None:
        first, self.signal = self.signal is None, number
        if first and self._finish_step:
            self._announce(f"{number.name}: finishing the step, then stopping (again: at once)")
            self._finish_step()
        elif self._task:
            self._announce(f"{number.name}: stopping at once")
            self._task.cancel()
