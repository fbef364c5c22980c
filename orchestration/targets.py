"""Tells a local Prometheus where a run serves its metrics, in its `file_sd` format."""

import hashlib
import ipaddress
import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from configs.run import RunConfig
from orchestration.roles import Process
from orchestration.run_folder import run_path, write_json

_LOG = logging.getLogger(__name__)


def targets_folder(cache: Path) -> Path:
    """Return the folder that a local Prometheus watches, below the cache."""
    return cache.expanduser() / "targets"


class TargetFile:
    """The file of one run folder, `CACHE/targets/NAME-HASH.json`: there while it serves metrics.

    A run that is killed leaves it, so that its target is seen to be down; the next one in the
    same folder replaces it.
    """

    def __init__(self, config: RunConfig, port: int | None) -> None:
        """Take the driver's port; None: it serves none."""
        self._run, self._host = config.name, config.monitoring.host
        self._always = self._here("driver", port)
        self._groups = list(self._always)
        folder = hashlib.sha256(str(run_path(config)).encode()).hexdigest()[:8]
        self.path = targets_folder(config.cache) / f"{config.name}-{folder}.json"

    def add(self, process: str, port: int | None) -> None:
        """Tell of a process of this machine, too, as long as the run lasts; None: of none."""
        self._always += self._here(process, port)
        self.show({})

    def __enter__(self) -> Self:
        """Write it, whole."""
        self._write()
        return self

    def show(self, parts: Mapping[str, Process | None]) -> None:
        """Tell of these parts beside the driver, and of no others."""
        known = {name: where for name, where in parts.items() if where}
        groups = [*self._always, *(g for n, where in known.items() for g in self._group(n, where))]
        if groups != self._groups:
            self._groups = groups
            self._write()

    def __exit__(self, *_: object) -> None:
        """Take it away: the run is over."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("%s could not be removed (%s)", self.path, error.strerror)

    def _write(self) -> None:
        """Write it; where that fails Prometheus does not find the run, which goes on."""
        try:
            if self._groups:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, self._groups)
        except OSError as error:
            _LOG.warning("a local Prometheus is not told: %s (%s)", self.path, error.strerror)

    def _here(self, name: str, port: int | None) -> list[dict[str, Any]]:
        return self._group(name, Process(socket.gethostname(), 0, metrics_port=port))

    def _group(self, name: str, where: Process) -> list[dict[str, Any]]:
        """Return what `file_sd` wants to know of a process; nothing of one out of reach."""
        host = _scraped(self._host, where)
        if not (host and where.metrics_port):
            return []
        labels = {"run": self._run, "process": name}
        return [{"targets": [f"{host}:{where.metrics_port}"], "labels": labels}]


def _scraped(host: str, where: Process) -> str | None:
    """Return the address by which this machine reaches what listens on ``host`` there."""
    near = where.host == socket.gethostname()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host if near else None
    if address.is_unspecified:
        loopback = "127.0.0.1" if address.version == 4 else "::1"
        address = ipaddress.ip_address(loopback if near else where.address)
    elif not near:
        return None
    return str(address) if address.version == 4 else f"[{address}]"
