"""Errors that tests plant in the GPU overlay, and what is said of them."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.deploy.complaints import complaints
from tests.deploy.manifests import Manifest, built, one
from tests.deploy.pods import templates_of

Spoil = Callable[[list[Manifest]], Any]
Planted = dict[str, tuple[Spoil, str]]
"""What is done to the manifests, and words that a complaint then holds, by the error's name."""


def assert_caught(planted: tuple[Spoil, str], folder: Path) -> None:
    """Plant it in sound manifests; ``folder`` is there to write to."""
    spoil, said = planted
    manifests = sound()
    spoil(manifests)
    found = complaints(manifests, folder)
    assert any(said in complaint for complaint in found), found


def sound() -> list[Manifest]:
    """The GPU overlay, new at each call."""
    return copy.deepcopy(_built())


@cache
def _built() -> list[Manifest]:
    return built("gpu")


def job(manifests: list[Manifest]) -> Manifest:
    return one(manifests, "RayJob")["spec"]


def head(manifests: list[Manifest]) -> Manifest:
    return pod(manifests, "head")


def pod(manifests: list[Manifest], where: str) -> Manifest:
    return dict(templates_of(one(manifests, "RayJob")))[where]


def container(manifests: list[Manifest], where: str = "head") -> Manifest:
    return pod(manifests, where)["spec"]["containers"][0]


def group(manifests: list[Manifest]) -> Manifest:
    return job(manifests)["rayClusterSpec"]["workerGroupSpecs"][0]


def parameters(manifests: list[Manifest]) -> Manifest:
    return job(manifests)["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]


def item(items: list[Manifest], key: str, value: str) -> Manifest:
    """The one whose ``key`` is ``value``."""
    return next(each for each in items if each.get(key) == value)


def without(items: list[Manifest], key: str, value: str) -> None:
    """Take it out."""
    items.remove(item(items, key, value))


def add(manifests: list[Manifest], kind: str, **fields: Any) -> None:
    """Another manifest, in the run's namespace."""
    metadata = {"name": "other", "namespace": "dpkd"}
    manifests.append({"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields})


def say(manifests: list[Manifest], words: str) -> None:
    """At the end of the entrypoint."""
    job(manifests)["entrypoint"] += f" {words}"


def in_recipe(manifests: list[Manifest], old: str, new: str) -> None:
    data = one(manifests, "ConfigMap", "dpkd-recipe")["data"]
    assert old in data["recipe.yaml"]
    data["recipe.yaml"] = data["recipe.yaml"].replace(old, new)
