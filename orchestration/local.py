"""The same pipeline in one process, without Ray: for debuggers and tests.

All parts share one thread beside the event loop's: vLLM keeps the running forward pass in a
global of its module, so two engines of one process must never compute at the same time. Calls run
one at a time and in order; references are asyncio futures.
"""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from orchestration.busy_clock import BusyClock, Reading
from orchestration.roles import Role, spread


class LocalRole(Role):
    """A part that lives in this process."""

    copies_answers = False

    def __init__(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        thread: ThreadPoolExecutor,
        timeout: float,
        clock: BusyClock | None = None,
    ) -> None:
        """Take the process's one ``thread`` for parts, which outlives this role."""
        super().__init__(name, timeout)
        self._build = build
        self._part: Any = None
        self._clock = clock or BusyClock()
        self._thread = thread
        self._builtins = {
            "build": self._build_part,
            "clock": self._read_clock,
            "restart_clock": self._restart_clock,
            "statistics": self._statistics,
        }

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """See ``Role.submit``."""
        answer = _reference(self._run(method, args, returns))
        if returns == 1:
            return answer
        return tuple(_reference(_item(answer, index)) for index in range(returns))

    async def stop(self) -> None:
        """See ``Role.stop``."""
        if hasattr(self._part, "close"):
            await self._run("close", (), 1)

    async def _run(self, method: str, args: tuple[Any, ...], returns: int) -> Any:
        values = [await arg if isinstance(arg, asyncio.Future) else arg for arg in args]
        if method in self._builtins:
            return await self._builtins[method]()
        function = getattr(self._part, method)
        if inspect.iscoroutinefunction(function):
            return spread(await function(*values), returns)
        loop = asyncio.get_running_loop()
        timed = partial(self._timed, method, values, came=time.monotonic())
        return spread(await loop.run_in_executor(self._thread, timed), returns)

    def _timed(self, method: str, values: list[Any], *, came: float) -> Any:
        """Run in the parts' thread: what is booked is work, not waiting for the thread."""
        self._clock.begin(method, came)
        try:
            return getattr(self._part, method)(*values)
        finally:
            self._clock.end(method)

    async def _build_part(self) -> None:
        came, loop = time.monotonic(), asyncio.get_running_loop()
        self._part = await loop.run_in_executor(self._thread, self._timed_build, came)
        self._clock.restart()

    def _timed_build(self, came: float) -> Any:
        self._clock.begin("build", came)
        try:
            return self._build()
        finally:
            self._clock.end("build")

    async def _statistics(self) -> Any:
        counts = self._part.statistics()
        return await counts if inspect.isawaitable(counts) else counts

    async def _read_clock(self) -> Reading:
        return self._clock.read(take_spans=True)

    async def _restart_clock(self) -> None:
        self._clock.restart()


def _reference(answer: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Start a call. Nobody may wait for an error that another reference has told already:
    asyncio is not to complain of it, with a trace, behind the one sentence for the user.
    """
    task = asyncio.ensure_future(answer)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _item(answer: asyncio.Future[Any], index: int) -> Any:
    return (await answer)[index]
