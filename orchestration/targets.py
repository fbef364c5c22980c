"""Tells a local Prometheus where a run serves its metrics, in its `file_sd` format."""

import hashlib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from configs.run import RunConfig
from orchestration.run_folder import run_path, write_json


def targets_folder(cache: Path) -> Path:
    """Return the folder that a local Prometheus watches, below the cache."""
    return cache.expanduser() / "targets"


class TargetFile:
    """The file of one run folder, `CACHE/targets/NAME-HASH.json`: there while it serves metrics.

    A run that is killed leaves it, so that its target is seen to be down; the next one in the
    same folder replaces it.
    """

    def __init__(self, config: RunConfig, ports: Mapping[str, int]) -> None:
        """Take the ``ports`` served on, by process; empty: there is nothing to tell."""
        host = _scraped(config.monitoring.host)
        folder = hashlib.sha256(str(run_path(config)).encode()).hexdigest()[:8]
        self.path = targets_folder(config.cache) / f"{config.name}-{folder}.json"
        self._groups = [
            {"targets": [f"{host}:{port}"], "labels": {"run": config.name, "process": process}}
            for process, port in ports.items()
        ]

    def __enter__(self) -> Self:
        """Write it, whole."""
        if self._groups:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self._groups)
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away: the run is over."""
        self.path.unlink(missing_ok=True)


def _scraped(host: str) -> str:
    """Return the address by which this machine reaches what listens on ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
