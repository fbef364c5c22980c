"""Ray nodes of our own, on loopback or on hosts, started as an operator does, ended by pid."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from tests.e2e.hosts import Host

RAY = Path(sys.executable).with_name("ray")
_SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray's own settings: a head notices in seconds, not in a minute, that a node is gone."""


class RayNode:
    """A head, or a node that joins one; one machine may hold several."""

    def __init__(
        self,
        log: Path,
        *,
        joins: "RayNode | None" = None,
        cpus: int = 2,
        auth: str = "token",
        on: Host | None = None,
        **resources: float,
    ) -> None:
        """Start it, and wait until it is there; ``resources`` are custom ones.

        It is on loopback, or ``on`` a host: the head of hosts must be, too.
        """
        self.log = log
        self.environment = with_venv() | {"RAY_AUTH_MODE": auth}
        """Of whoever speaks with it."""
        # A driver takes the node of its own address for its own: others get another.
        own = on.address if on else "127.0.0.2" if joins else "127.0.0.1"
        self.address = joins.address if joins else ""
        """``host:port``, as in cluster.address."""
        self.dashboard = ""
        role = self._as_head(own) if joins is None else [f"--address={joins.address}"]
        command = [
            *(RAY, "start", "--block", f"--node-ip-address={own}", *role),
            *(f"--num-cpus={cpus}", f"--resources={json.dumps(resources)}"),
            "--disable-usage-stats",
        ]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                on.command(*command) if on else command,
                env=self.environment | _SOON,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if joins is None and on is None:
            self._wait_until(self._answers)
        else:  # no dashboard here, or none within reach
            self._wait_until(lambda: "Ray runtime started" in log.read_text())

    def _as_head(self, own: str) -> list[str]:
        gcs, dashboard, client, agent = free_ports(4)
        self.address = f"{own}:{gcs}"
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        return [
            *("--head", f"--port={gcs}", "--dashboard-host=127.0.0.1"),
            *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            f"--dashboard-agent-listen-port={agent}",
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Have it end; kill what does not."""
        family = self._family()
        if self._process.poll() is None:
            self._process.terminate()  # it ends the others in their order, which takes less long
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        self._process.wait(10)

    def kill(self) -> None:
        """Lose it at once, as when its machine dies: Ray's processes and all of its workers."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):  # it went with another one
                process.kill()
        self._process.wait(10)

    def is_running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def _family(self) -> list[psutil.Process]:
        try:
            head = psutil.Process(self._process.pid)
            return [head, *head.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def _answers(self) -> bool:
        request = urllib.request.Request(
            f"{self.dashboard}/api/version",
            headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=2):
                return True
        except OSError:
            return False


def with_venv() -> dict[str, str]:
    """The environment of an activated .venv: a job's `python` is looked up by the head's PATH."""
    return {**os.environ, "PATH": f"{RAY.parent}:{os.environ['PATH']}"}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def two_machines(
    folder: Path, *, head: Mapping[str, Any], other: Mapping[str, Any]
) -> "Iterator[tuple[RayNode, RayNode]]":
    """A head and a node, each with custom resources, for as long as they are needed."""
    with RayNode(folder / "head.log", **head) as first:
        second = RayNode(folder / "node.log", joins=first, **other)
        try:
            yield first, second
        finally:
            second.kill()
