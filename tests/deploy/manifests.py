"""What `kubectl apply -k` would send: an overlay as kustomize builds it."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = ("cpu-demo", "gpu")
Manifest = dict[str, Any]


def built(overlay: str) -> list[Manifest]:
    """Every manifest of an overlay, new at each call."""
    return list(yaml.safe_load_all(_kustomized(DEPLOY / "overlays" / overlay)))


@cache
def _kustomized(folder: Path) -> str:
    return kustomize(folder)


def kubectl() -> str | None:
    """The one that `make setup` installs, else the machine's; None: there is none."""
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.is_file() else shutil.which("kubectl")


def kustomize(folder: Path) -> str:
    if not (command := kubectl()):
        pytest.skip("kubectl is not installed (make setup does it): it builds the overlays")
    done = subprocess.run(
        [command, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The manifest of a kind, of that name if there are several."""
    (found,) = of_kind(manifests, kind, name)
    return found


def of_kind(manifests: list[Manifest], kind: str, name: str = "") -> list[Manifest]:
    return [
        each
        for each in manifests
        if each["kind"] == kind and (not name or name == each["metadata"]["name"])
    ]
