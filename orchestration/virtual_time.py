"""An event loop whose clock jumps: what would take hours is over as soon as it is computed."""

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingHappensError(RuntimeError):
    """Everybody waits for somebody, and nobody for the clock: in real time for ever."""


class _JumpingSelector(selectors.SelectSelector):
    """Where a real selector would wait, it moves the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingHappensError("the simulated run waits for ever")
        # A hair further: after months asyncio's grace of a nanosecond is lost in the sum, and a
        # timer that is due to the bit would never be over.
        self.now = math.nextafter(self.now + max(0.0, timeout), math.inf)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs one program in virtual seconds, which begin at 0; nothing else may wake it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual second."""
        return self._jumping.now


def run_in_virtual_time(program: Coroutine[Any, Any, T]) -> T:
    """Run ``program`` to its end; raises what it raises, and NothingHappensError."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(program)
