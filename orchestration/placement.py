"""Where the parts run: the only file in which `ray.remote` is written.

The parts are plain classes. ``RayRole`` hosts one in an actor of its own; a class with
``async`` methods (the replay queue) gets an asyncio actor.
"""

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from configs.cluster import ClusterConfig, RoleResources
from configs.errors import DependencyError
from orchestration.roles import BusyClock, Role, RoleError, spread


class _Host:
    """Lives in the actor's process and owns the part."""

    def __init__(self, build: Callable[[], Any]) -> None:
        # The part is built by a call of its own: an error in an actor's constructor would
        # reach the driver as text only, and its type and exit code would be lost.
        self._build = build
        self._part: Any = None
        self._clock = BusyClock()

    def build(self) -> None:
        self._part = self._build()
        self._clock.restart()

    def clock(self) -> dict[str, Any]:
        return self._clock.read()

    def restart_clock(self) -> None:
        self._clock.restart()

    def run(self, method: str, returns: int, *args: Any) -> Any:
        start = time.monotonic()
        try:
            return spread(getattr(self._part, method)(*args), returns)
        finally:
            self._clock.add(method, time.monotonic() - start)


class _AsyncHost(_Host):
    """The same for a part whose methods are coroutines: many calls may wait in it at once."""

    async def run(self, method: str, returns: int, *args: Any) -> Any:
        answer = getattr(self._part, method)(*args)
        return spread(await answer if inspect.isawaitable(answer) else answer, returns)


_NAMES: dict[str, str] = {}
"""Actor id → role, for every actor that this process placed."""


class RayRole(Role):
    """A part in a Ray actor."""

    def __init__(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        resources: RoleResources,
        environment: dict[str, str] | None = None,
        timeout: float,
        asynchronous: bool = False,
    ) -> None:
        super().__init__(name, timeout)
        host = ray.remote(_AsyncHost if asynchronous else _Host)
        self._actor: Any = host.options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            resources=resources.custom,
            runtime_env={"env_vars": environment or {}},
        ).remote(build)
        _NAMES[self._actor._actor_id.hex()] = name

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """See ``Role.submit``."""
        if method in ("build", "clock", "restart_clock"):
            return getattr(self._actor, method).remote()
        return self._actor.run.options(num_returns=returns).remote(method, returns, *args)

    async def fetch(self, reference: Any, timeout: float | None = None) -> Any:
        """See ``Role.fetch``; what Ray reports becomes one sentence."""
        try:
            return await super().fetch(reference, timeout)
        except RayError as error:
            raise _for_the_user(_root_cause(error), self.name) from None

    async def stop(self) -> None:
        """See ``Role.stop``."""
        try:
            with contextlib.suppress(TimeoutError, RayError):
                await asyncio.wait_for(self._actor.run.remote("close", 1), 10)
        finally:  # in whatever state it is
            ray.kill(self._actor)  # pyright: ignore[reportArgumentType]


class TransferCall:
    """Runs one phase of vLLM's weight transfer on every sampler; travels to the learner."""

    def __init__(self, roles: Sequence[RayRole], timeout: float) -> None:
        self._actors = [role._actor for role in roles]
        self._timeout = timeout

    def __call__(self, phase: str, payload: dict[str, Any]) -> None:
        """Run ``phase`` on all samplers at once, and wait for them."""
        calls = [actor.run.remote("transfer", 1, phase, payload) for actor in self._actors]
        ray.get(calls, timeout=self._timeout)


def _root_cause(error: RayError) -> BaseException:
    cause: BaseException = error
    while isinstance(cause, RayTaskError) and cause.cause is not None:
        cause = cause.cause
    return cause


def _for_the_user(cause: BaseException, asked: str) -> BaseException:
    """Turn what Ray reports into one sentence; a part's own error stays what it is.

    A death reaches the driver through whichever role waited for the dead one's answer, so the
    name comes from the actor's id.
    """
    if isinstance(cause, RayActorError):
        name = _NAMES.get(cause.actor_id or "", asked)
        return RoleError(
            f"{name} died ({_last_line(cause)}); why is in its log, on its node, below "
            "/tmp/ray/session_latest/logs"
        )
    if isinstance(cause, RayError):
        return RoleError(f"{asked} could not answer: {_last_line(cause)}")
    return cause


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def require_resources(config: ClusterConfig, counts: dict[str, int]) -> None:
    """Refuse a run that the cluster can never place, before any model loads.

    ``counts`` gives the number of actors of each role. Raises ``DependencyError`` that says
    what is asked and what there is.
    """
    there = ray.cluster_resources()
    asked: dict[str, float] = {}
    for role, count in counts.items():
        resources: RoleResources = getattr(config, role)
        named = {"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}
        for name, amount in named.items():
            asked[name] = asked.get(name, 0.0) + amount * count
    short = [
        f"{name}: {amount:g} asked, {there.get(name, 0.0):g} there"
        for name, amount in asked.items()
        if amount > there.get(name, 0.0) + 1e-9
    ]
    if short:
        actors = ", ".join(f"{count} {role}" for role, count in counts.items() if count)
        raise DependencyError(
            f"the cluster cannot place {actors} ({'; '.join(short)}); "
            "lower replicas or cluster.<role>.cpus/gpus/custom, or add nodes"
        )
