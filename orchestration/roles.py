"""What the pipeline knows of a part: something to call, wherever it runs.

A role's method is either *called* (its answer comes to the driver: small values) or
*submitted* (its answer stays where it was made, and a reference to it is handed on to the
next role: large values, which never pass through the driver).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from configs.errors import DpkdError


class RoleError(DpkdError):
    """A role died or did not answer in time; the message names it and says why."""

    exit_code = 3


class RoleDied(RoleError):
    """The process of a role ended. Raised to whoever waited for its answer, directly or not."""

    def __init__(self, message: str, *, role: str, life: int) -> None:
        super().__init__(message)
        self.role = role
        """Role and replica, such as ``sampler-0``."""
        self.life = life
        """Which of its lives ended: a later one may have begun already."""


class AnswerLost(RoleDied):
    """What a role answered lay on a machine that is gone: it is to be asked again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, role="answer", life=0)


class Process(NamedTuple):
    """A process somewhere in the cluster."""

    host: str
    pid: int
    address: str = ""
    """Its machine's, in the cluster."""
    metrics_port: int | None = None
    """Where it serves metrics; None: nowhere."""


class Role(ABC):
    """A handle on one running part."""

    copies_answers = True
    """Whether what a part answers is copied before its next call begins, as on its way into
    another process; else whoever asked holds the part's own objects."""

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        """Role and replica, such as ``sampler-0``."""
        self.life = 0
        """Number of restarts."""
        self.process: Process | None = None
        """Where the part runs, as far as it has said so."""
        self._timeout = timeout
        self._clients = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def clients(self) -> int:
        """How many wait for what follows from its answers."""
        return self._clients

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Note that something was submitted to it, until what follows from that is there."""
        self._clients += 1
        self._free.clear()
        try:
            yield
        finally:
            self._clients -= 1
            if not self._clients:
                self._free.set()

    async def free(self) -> None:
        """Wait until nobody waits for anything of it that stays remote."""
        await self._free.wait()

    @abstractmethod
    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """Start ``method`` and return a reference to its answer, or ``returns`` of them.

        Arguments that are references arrive as their values.
        """

    async def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Run ``method`` and wait for its answer.

        Raises what the method raised; ``RoleError`` when the part died or when ``timeout``
        seconds (default: ``cluster.call_timeout_seconds``) passed.
        """
        return await self.fetch(self.submit(method, *args), timeout)

    async def fetch(self, reference: Any, timeout: float | None = None) -> Any:
        """Wait for a reference that ``submit`` gave; raises as ``call`` does."""
        limit = timeout or self._timeout
        try:
            # Not wait_for: Python 3.11's forgets a cancellation that comes with the answer.
            async with asyncio.timeout(limit):
                return await reference
        except TimeoutError:
            raise RoleError(f"{self.name} gave no answer in {limit:.0f} s") from None

    @abstractmethod
    async def stop(self) -> None:
        """Close the part and end its process; never raises."""

    async def is_alive(self, timeout: float) -> bool:
        """Whether the part's process answers within ``timeout`` seconds, busy or not."""
        return True

    def kill(self) -> None:
        """End the part's process as it is; whoever waits for it hears ``RoleDied``."""
        raise RoleError(f"{self.name} cannot be killed: it is no process of its own")

    def restart(self) -> None:
        """Start a new process in place of a dead one; ``build`` is to be called again."""
        raise RoleError(f"{self.name} cannot be restarted: it is no process of its own")


def spread(values: Any, returns: int) -> Any:
    """Give a method's ``None`` the arity that its caller asked for."""
    return (None,) * returns if values is None and returns > 1 else values
