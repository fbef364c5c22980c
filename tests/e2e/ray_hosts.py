"""A Ray cluster whose nodes are hosts of a small network: what they hold travels over its wires."""

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from tests.e2e.hosts import Host, Network
from tests.e2e.ray_nodes import RayNode

LEARNER, TEACHER, SAMPLER = {"learner": 1}, {"teacher": 1}, {"sampler": 1}
"""Seats of a host: how many of each part it has room for."""
SEATED = (
    'cluster.learner={"cpus":0,"custom":{"learner":1}}',
    'cluster.teacher={"cpus":0,"custom":{"teacher":1}}',
    'cluster.sampler={"cpus":0,"custom":{"sampler":1}}',
)
"""Overrides of a run: every part takes a seat."""


class RayHosts:
    """A head, with room for drivers and queues only, and a host for each entry of ``seats``."""

    def __init__(self, folder: Path, *seats: Mapping[str, Any]) -> None:
        """Start them all; ``seats`` are the custom resources of each host but the head's.

        Skips the test where this machine permits no hosts of their own.
        """
        self._folder = folder
        self._seats: dict[Host, Mapping[str, Any]] = {}
        self._nodes: dict[Host, RayNode] = {}
        with contextlib.ExitStack() as started:
            self.network = started.enter_context(Network(1 + len(seats), folder / "hosts"))
            self.head, *others = self.network.hosts
            self._head = RayNode(folder / "head.log", on=self.head, cpus=1)
            started.callback(self._head.kill)  # one by one they would take their time
            started.callback(self._kill)
            self._seats.update(zip(others, seats, strict=True))
            with ThreadPoolExecutor() as pool:
                list(pool.map(self.start, others))
            self._started = started.pop_all()

    @property
    def address(self) -> str:
        """``host:port``, as in cluster.address."""
        return self._head.address

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Switch every host off, and take the network down."""
        self._started.close()

    def runs_on(self, host: Host) -> bool:
        """Whether the Ray of a host has not ended by itself."""
        return self._nodes[host].is_running()

    def start(self, host: Host) -> None:
        """Start Ray on a host where none runs, as whoever watches over a pod does."""
        log = self._folder / f"{host.name}.log"
        self._nodes[host] = RayNode(log, joins=self._head, on=host, cpus=0, **self._seats[host])

    def at(self, address: str) -> Host:
        """Return the host that has this address."""
        return next(host for host in self.network.hosts if host.address == address)

    def _kill(self) -> None:
        for node in self._nodes.values():
            node.kill()
