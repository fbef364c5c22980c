"""Where the parts run: the only file in which `ray.remote` is written.

The parts are plain classes. ``RayRole`` hosts one in an actor of its own; a class with
``async`` methods (the replay queue) gets an asyncio actor, on the driver's machine.
"""

import asyncio
import contextlib
import inspect
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from configs import faults
from configs.cluster import ClusterConfig, RoleResources
from configs.errors import DependencyError
from configs.monitoring import MonitoringConfig
from orchestration.busy_clock import BusyClock, Reading
from orchestration.role_metrics import RoleExporter
from orchestration.roles import AnswerLost, Process, Role, RoleDied, RoleError, spread
from orchestration.room import bundle, no_room

HEALTH = "health"
"""Concurrency group, and so thread, of the methods that answer while a part works."""
_BUILTIN = ("build", "clock", "restart_clock", "statistics")
"""What the host answers itself; of a part that only counts, its counts."""


class _Host:
    """Lives in the actor's process and owns the part."""

    def __init__(
        self, build: Callable[[], Any], name: str, monitoring: MonitoringConfig | None
    ) -> None:
        # The part is built by a call of its own: an error in an actor's constructor would
        # reach the driver as text only, and its type and exit code would be lost.
        self._build = build
        self._part: Any = None
        self._clock = BusyClock()
        self._exporter = RoleExporter(monitoring, name, self._clock) if monitoring else None

    def build(self) -> None:
        self._clock.begin("build")
        try:
            self._part = self._build()
        finally:
            self._clock.end("build")
        self._clock.restart()

    @ray.method(concurrency_group=HEALTH)
    def identity(self) -> Process:
        port = self._exporter.port if self._exporter else None
        return Process(socket.gethostname(), os.getpid(), node_address(), port)

    @ray.method(concurrency_group=HEALTH)
    def clock(self) -> Reading:
        return self._clock.read(take_spans=True)

    @ray.method(concurrency_group=HEALTH)
    def restart_clock(self) -> None:
        self._clock.restart()

    @ray.method(concurrency_group=HEALTH)
    def statistics(self) -> Any:
        """Beside the clock: who looks at a part must not change what is seen."""
        return self._part.statistics() if self._part else {}

    def run(self, call: list[Any], *references: Any) -> Any:
        method, returns, args = _unfold(call, references)
        self._clock.begin(method)
        try:
            return spread(getattr(self._part, method)(*args), returns)
        finally:
            self._clock.end(method)


class _AsyncHost(_Host):
    """The same for a part whose methods are coroutines: many calls may wait in it at once."""

    async def statistics(self) -> Any:
        return await self._part.statistics()

    async def run(self, call: list[Any], *references: Any) -> Any:
        method, returns, args = _unfold(call, references)
        answer = getattr(self._part, method)(*args)
        return spread(await answer if inspect.isawaitable(answer) else answer, returns)


def _fold(method: str, args: Sequence[Any], returns: int = 1) -> list[Any]:
    """Return what a host's ``run`` takes: one list, and references beside it, which Ray resolves.

    Ray packs every argument by itself, and an empty one before it: small calls feel that.
    """
    places = [place for place, arg in enumerate(args) if isinstance(arg, ray.ObjectRef)]
    plain = [None if place in places else arg for place, arg in enumerate(args)]
    return [[method, returns, plain, places], *(args[place] for place in places)]


def _unfold(call: list[Any], references: Sequence[Any]) -> tuple[str, int, list[Any]]:
    """Return what ``_fold`` was given. Further references are what Ray was to wait for."""
    method, returns, args, places = call
    for place, value in zip(places, references, strict=False):
        args[place] = value
    return method, returns, args


def node_address() -> str:
    """Return the address by which the cluster knows this process's machine."""
    return ray.util.get_node_ip_address()


class RayGang:
    """Places of actors that speak with each other all the time: on as few machines as there are."""

    def __init__(self, resources: RoleResources, count: int) -> None:
        self._group = placement_group([bundle(resources)] * count, strategy="PACK")

    def place(self, index: int) -> PlacementGroupSchedulingStrategy:
        """Return the ``index``-th place; a restarted actor gets its old one."""
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)

    def release(self) -> None:
        """Give the places back; their actors are ended before."""
        with contextlib.suppress(RayError):
            remove_placement_group(self._group)


_ACTORS: dict[str, tuple[str, int]] = {}
"""Actor id → role and life, for every actor that this process placed."""


class RayRole(Role):
    """A part in a Ray actor, whose process serves its metrics as ``monitoring`` says."""

    def __init__(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        resources: RoleResources,
        monitoring: MonitoringConfig | None = None,
        environment: dict[str, str] | None = None,
        timeout: float,
        asynchronous: bool = False,
        calls_at_once: int = 1,
        place: Any = "SPREAD",
    ) -> None:
        """Have Ray place it; ``place`` is a scheduling strategy of Ray's.

        The part has a thread for each of ``calls_at_once``.
        """
        super().__init__(name, timeout)
        remote: Any = ray.remote  # its annotations know no concurrency groups
        # In order, Ray would hold every call, even whether a part is alive, behind one whose
        # argument another part has still to make.
        self._host = remote(concurrency_groups={HEALTH: 1}, allow_out_of_order_execution=True)(
            _AsyncHost if asynchronous else _Host
        )
        # What coordinates stays beside the driver: no other machine's loss is then its own.
        self._strategy = _beside_the_driver() if asynchronous else place
        self._concurrency = {} if asynchronous else {"max_concurrency": calls_at_once}
        self._task_events = not asynchronous
        """Whether Ray keeps books of every call, which is a part of what small ones cost."""
        self._resources = resources
        self._environment = environment or {}
        self._monitoring = None if asynchronous else monitoring
        self._build = build
        self._actor: Any = self._place()
        self._built: Any = None
        """What ``build`` will return, until it has: calls out of order wait for that, too."""

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        """See ``Role.submit``."""
        if method == "build":
            self._built = self._actor.build.remote()
            return self._built
        if method in _BUILTIN:
            return getattr(self._actor, method).remote()
        run = self._actor.run
        if returns > 1:
            run = run.options(num_returns=returns)
        waits_for = [] if self._built is None else [self._built]
        return run.remote(*_fold(method, args, returns), *waits_for)

    async def fetch(self, reference: Any, timeout: float | None = None) -> Any:
        """See ``Role.fetch``; what Ray reports becomes one sentence."""
        try:
            answer = await super().fetch(reference, timeout)
        except RayError as error:
            raise _for_the_user(_root_cause(error), self.name) from None
        if reference is self._built:
            self._built = None  # it is built: no later call has anything to wait for
        return answer

    async def stop(self) -> None:
        """See ``Role.stop``."""
        try:
            with contextlib.suppress(TimeoutError, RayError):
                await asyncio.wait_for(self._actor.run.remote(*_fold("close", ())), 10)
        finally:  # in whatever state it is
            ray.kill(self._actor)  # pyright: ignore[reportArgumentType]

    async def is_alive(self, timeout: float) -> bool:
        """See ``Role.is_alive``."""
        try:
            async with asyncio.timeout(timeout):
                self.process = await self._actor.identity.remote()
        except (TimeoutError, RayError):
            return False
        return True

    def kill(self) -> None:
        """See ``Role.kill``; Ray alone would ask a stopped process to end itself."""
        ray.kill(self._actor)
        if self.process and self.process.host == socket.gethostname():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    def restart(self) -> None:
        """See ``Role.restart``."""
        self.kill()
        self.life += 1
        self._built = None
        self._actor = self._place()

    def _place(self) -> Any:
        self.process = None
        env = {**self._environment, faults.ROLE_VARIABLE: self.name}
        if armed := os.environ.get(faults.VARIABLE):
            env[faults.VARIABLE] = faults.of_restarted(armed) if self.life else armed
        placed = self._host.options(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            resources=self._resources.custom,
            scheduling_strategy=self._strategy,
            enable_task_events=self._task_events,
            **self._concurrency,
            runtime_env={"env_vars": env},
        )
        actor = placed.remote(self._build, self.name, self._monitoring)
        _ACTORS[actor._actor_id.hex()] = (self.name, self.life)
        return actor


def _beside_the_driver() -> NodeAffinitySchedulingStrategy:
    node = ray.get_runtime_context().get_node_id()
    # Not soft: Ray then places it elsewhere now and then, although there is room.
    return NodeAffinitySchedulingStrategy(node, soft=False)


class TransferCall:
    """Runs one phase of vLLM's weight transfer on every sampler; travels to the learner."""

    def __init__(self, roles: Sequence[RayRole], timeout: float) -> None:
        self._roles = roles
        self._timeout = timeout

    def __call__(self, phase: str, payload: dict[str, Any]) -> None:
        """Run ``phase`` on all samplers at once, and wait for them."""
        call = _fold("transfer", (phase, payload))
        calls = [role._actor.run.remote(*call) for role in self._roles]
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
        name, life = _ACTORS.get(cause.actor_id or "", (asked, 0))
        return RoleDied(
            f"{name} died ({_last_line(cause)}); why is in its log, on its node, below "
            "/tmp/ray/session_latest/logs",
            role=name,
            life=life,
        )
    if isinstance(cause, ObjectLostError):
        return AnswerLost(f"an answer that {asked} was to have is lost ({_last_line(cause)})")
    if isinstance(cause, RayError):
        return RoleError(f"{asked} could not answer: {_last_line(cause)}")
    return cause


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray goes on with guesses at common causes, a paragraph of them.
    return lines[-1].split(" Worker exit type")[0] if lines else type(error).__name__


def require_resources(config: ClusterConfig, counts: dict[str, int]) -> None:
    """Refuse a run that the cluster can never place, before any model loads.

    ``counts`` gives the number of actors of each role. Raises ``DependencyError`` that says
    what is asked and what there is.
    """
    alive = (node for node in ray.nodes() if node["Alive"])
    nodes = [(f"node {node['NodeManagerAddress']}", node["Resources"]) for node in alive]
    if why := no_room(config, counts, nodes):
        raise DependencyError(
            f"the cluster cannot place {why}; lower replicas or cluster.<role>.cpus/gpus/custom, "
            "or add nodes"
        )
