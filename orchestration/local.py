"""The same pipeline in one process, without Ray: for debuggers and tests.

Every part gets a thread of its own, so that the event loop stays free; references are
asyncio futures. Calls on one part run one at a time and in order, as on a Ray actor.
"""

import asyncio
import inspect
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestration.roles import BusyClock, RoleError, spread


class LocalRole:
    """A part that lives in this process."""

    def __init__(self, name: str, build: Callable[[], Any], *, timeout: float) -> None:
        self.name = name
        self._build = build
        self._part: Any = None
        self._timeout = timeout
        self._clock = BusyClock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turn = asyncio.Lock()

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """See ``Role.submit``."""
        answer = asyncio.ensure_future(self._run(method, args, returns))
        if returns == 1:
            return answer
        return tuple(asyncio.ensure_future(_item(answer, index)) for index in range(returns))

    async def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """See ``Role.call``."""
        return await self.fetch(self.submit(method, *args), timeout)

    async def fetch(self, reference: Any, timeout: float | None = None) -> Any:
        """See ``Role.fetch``."""
        limit = timeout or self._timeout
        try:
            return await asyncio.wait_for(reference, limit)
        except TimeoutError:
            raise RoleError(f"{self.name} gave no answer in {limit:.0f} s") from None

    async def stop(self) -> None:
        """See ``Role.stop``."""
        if hasattr(self._part, "close"):
            closed = self._part.close()
            if inspect.isawaitable(closed):
                await closed
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, method: str, args: tuple[Any, ...], returns: int) -> Any:
        values = [await arg if isinstance(arg, asyncio.Future) else arg for arg in args]
        function = self._builtin(method) or getattr(self._part, method)
        if inspect.iscoroutinefunction(function):
            return spread(await function(*values), returns)
        async with self._turn:
            start = time.monotonic()
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._thread, lambda: function(*values))
            if not self._builtin(method):
                self._clock.add(method, time.monotonic() - start)
        return spread(answer, returns)

    def _builtin(self, method: str) -> Callable[..., Any] | None:
        builtins = {
            "build": self._build_part,
            "clock": self._clock.read,
            "restart_clock": self._clock.restart,
        }
        return builtins.get(method)

    def _build_part(self) -> None:
        self._part = self._build()


async def _item(answer: asyncio.Future[Any], index: int) -> Any:
    return (await answer)[index]
