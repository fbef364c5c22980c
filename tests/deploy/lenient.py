"""Manifests read as they come: what is missing, or of another kind, is empty and raises nothing.

Whoever checks a manifest says what is missing; a check that stumbles over it says nothing.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard

from tests.deploy.manifests import Manifest

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def mapping(value: Any, *keys: str) -> Manifest:
    """The mapping at a path."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def sequence(value: Any, *keys: str) -> list[Any]:
    """The list at a path."""
    *path, last = keys
    found = mapping(value, *path).get(last)
    return found if isinstance(found, list) else []


def mappings(value: Any, *keys: str) -> list[Manifest]:
    """The list of mappings at a path; an item that is none is an empty one."""
    return [mapping(each) for each in sequence(value, *keys)]


def text(value: Any, *keys: str) -> str:
    """The string at a path."""
    *path, last = keys
    found = mapping(value, *path).get(last)
    return found if isinstance(found, str) else ""


def texts(value: Any, *keys: str) -> list[str]:
    """The strings of the list at a path."""
    return [each for each in sequence(value, *keys) if isinstance(each, str)]


def number(value: Any, *keys: str) -> int:
    """The whole number at a path; 0 where there is none."""
    *path, last = keys
    found = mapping(value, *path).get(last)
    return found if is_whole(found) else 0


def name_of(manifest: Any) -> str:
    """A manifest's name."""
    return text(manifest, "metadata", "name")


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is an integer to Kubernetes, to which true is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def containers_of(spec: Manifest) -> Iterator[Manifest]:
    """Every container of a pod: those that prepare it and those that are put into it, too."""
    for kind in CONTAINERS:
        yield from mappings(spec, kind)
