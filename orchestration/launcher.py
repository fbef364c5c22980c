"""Where roles come from: Ray actors, or this process. One of two classes, chosen by the recipe."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import ray

from configs.cluster import ClusterConfig, RoleResources
from configs.errors import ConfigError, DependencyError
from configs.monitoring import MonitoringConfig
from orchestration.busy_clock import BusyClock
from orchestration.local import LocalRole
from orchestration.placement import RayGang, RayRole, TransferCall, require_resources
from orchestration.role_metrics import RoleMetrics
from orchestration.roles import Role
from orchestration.room import bundle


class Gang(Protocol):
    """Reserved places, close to each other."""

    def place(self, index: int) -> Any:
        """Return the place of one replica."""
        ...

    def release(self) -> None:
        """Give them back."""
        ...


class Launcher(Protocol):
    """Starts roles, and knows what there is to start them on."""

    cores: int
    """CPU cores of the machine that roles share."""
    metrics: RoleMetrics | None
    """Of parts that live in this process; None: they have exporters of their own."""
    ray_port: int | None
    """Where a Ray of our own serves its system's metrics; None: there is none."""

    def role(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        environment: dict[str, str] | None = None,
        asynchronous: bool = False,
        calls_at_once: int = 1,
        gang: Gang | None = None,
    ) -> Role:
        """Place a part; ``name`` is ``<role>`` or ``<role>-<replica>``.

        ``calls_at_once`` of its calls may run beside each other, where it is a process. In a
        ``gang`` it has the place of its replica's number; else replicas are spread over the
        machines.
        """
        ...

    def gang(self, role: str, count: int) -> Gang | None:
        """Reserve places for ``count`` replicas of a role, close to each other."""
        ...

    def transfer_call(self, samplers: Sequence[Role]) -> Callable[[str, dict[str, Any]], None]:
        """Return what runs a phase of vLLM's weight transfer on every sampler."""
        ...

    def require(self, counts: dict[str, int]) -> None:
        """Raise ``DependencyError`` when so many actors of each role can never be placed."""
        ...

    def __enter__(self) -> Self:
        """Connect."""
        ...

    def __exit__(self, *_: object) -> None:
        """Disconnect, and end what was started."""
        ...


def make_launcher(
    config: ClusterConfig, namespace: str, monitoring: MonitoringConfig | None = None
) -> Launcher:
    """Return the launcher that the recipe asks for; its parts serve metrics if told how."""
    return LocalLauncher(config) if config.local else RayLauncher(config, namespace, monitoring)


class LocalLauncher:
    """Every role in this process."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parts")
        self._clocks = RoleMetrics()
        self.metrics: RoleMetrics | None = self._clocks
        self.ray_port: int | None = None
        self.cores = os.cpu_count() or 1

    def role(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        environment: dict[str, str] | None = None,
        asynchronous: bool = False,
        calls_at_once: int = 1,
        gang: Gang | None = None,
    ) -> Role:
        """See ``Launcher.role``."""
        # Several parts share this process: the first one's word holds, as with any setdefault.
        for key, value in (environment or {}).items():
            os.environ.setdefault(key, value)
        timeout = self._config.call_timeout_seconds
        clock = BusyClock()
        if not asynchronous:
            self._clocks.add(name, clock)
        return LocalRole(name, build, thread=self._thread, timeout=timeout, clock=clock)

    def gang(self, role: str, count: int) -> None:
        """Nothing to reserve: all parts are here."""

    def transfer_call(self, samplers: Sequence[Role]) -> Callable[[str, dict[str, Any]], None]:
        """Refuse: CUDA transports need processes of their own."""
        raise ConfigError("cluster.local pushes by student.weight_transfer=object_store only")

    def require(self, counts: dict[str, int]) -> None:
        """Nothing to refuse: ``RunConfig`` allows one of each role here."""

    def __enter__(self) -> Self:
        """Nothing to connect to."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the parts' thread end after the call that it is in."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class RayLauncher:
    """Every role in a Ray actor, on a local Ray or on the cluster this was submitted to."""

    def __init__(
        self, config: ClusterConfig, namespace: str, monitoring: MonitoringConfig | None = None
    ) -> None:
        self._config = config
        self._namespace = namespace
        self._monitoring = monitoring
        self.metrics: RoleMetrics | None = None
        self.ray_port: int | None = None
        self.cores = os.cpu_count() or 1

    def role(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        environment: dict[str, str] | None = None,
        asynchronous: bool = False,
        calls_at_once: int = 1,
        gang: Gang | None = None,
    ) -> Role:
        """See ``Launcher.role``."""
        kind, _, replica = name.partition("-")
        resources = getattr(self._config, kind, RoleResources(cpus=0))
        return RayRole(
            name,
            build,
            resources=resources,
            monitoring=self._monitoring,
            environment=environment,
            timeout=self._config.call_timeout_seconds,
            asynchronous=asynchronous,
            calls_at_once=calls_at_once,
            place=gang.place(int(replica)) if gang else "SPREAD",
        )

    def gang(self, role: str, count: int) -> RayGang | None:
        """See ``Launcher.gang``; who is alone, or reserves nothing, needs no places."""
        resources = getattr(self._config, role)
        return RayGang(resources, count) if count > 1 and bundle(resources) else None

    def transfer_call(self, samplers: Sequence[Role]) -> Callable[[str, dict[str, Any]], None]:
        """See ``Launcher.transfer_call``."""
        roles = [role for role in samplers if isinstance(role, RayRole)]
        return TransferCall(roles, self._config.call_timeout_seconds)

    def require(self, counts: dict[str, int]) -> None:
        """See ``Launcher.require``."""
        require_resources(self._config, counts)

    def __enter__(self) -> Self:
        """Join the cluster in ``cluster.address`` or RAY_ADDRESS, else start a local Ray.

        ``settle_authentication`` was called before Ray was imported.
        """
        address = self._config.joined(os.environ) or "local"
        local = {"num_cpus": self._config.local_cpus or self.cores, "include_dashboard": False}
        try:
            ray.init(
                address,
                namespace=self._namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(local if address == "local" else {}),
            )
        except (ConnectionError, ValueError) as error:
            raise DependencyError(
                f"no Ray cluster answers at {address} ({error}); start one, or leave "
                "cluster.address and RAY_ADDRESS unset to run on this machine"
            ) from None
        if address == "local":
            self.ray_port = ray.nodes()[0]["MetricsExportPort"]
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster; a local Ray ends with it."""
        ray.shutdown()
