"""A RayJob's pods as the rules read them; where a manifest is not as it should be, empty.

A rule then finds the key missing, and says so, where a plain look-up would raise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.deploy.manifests import Manifest


def part(manifest: Any, *path: str) -> Manifest:
    """The mapping at a path."""
    for key in path:
        manifest = manifest.get(key) if isinstance(manifest, dict) else None
    return manifest if isinstance(manifest, dict) else {}


def parts(manifest: Any, *path: str) -> list[Manifest]:
    """The mappings of the list at a path."""
    *above, last = path
    found = part(manifest, *above).get(last)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def word(manifest: Any, *path: str) -> str:
    """The string at a path."""
    *above, last = path
    found = part(manifest, *above).get(last)
    return found if isinstance(found, str) else ""


def words(manifest: Any, *path: str) -> list[str]:
    """The strings of the list at a path."""
    *above, last = path
    found = part(manifest, *above).get(last)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def number(manifest: Any, *path: str) -> int:
    """The whole number at a path; 0 where there is none."""
    *above, last = path
    found = part(manifest, *above).get(last)
    return found if isinstance(found, int) else 0


def name_of(manifest: Any) -> str:
    """A manifest's name."""
    return word(manifest, "metadata", "name")


@dataclass(frozen=True)
class Pod:
    """What describes one kind of a RayJob's pods."""

    where: str
    """`submitter`, `head`, or the group's name."""
    role: str
    """`submitter`, `head` or `worker`."""
    template: Manifest
    parameters: Manifest
    """Of `ray start`."""
    count: int
    """How many there are."""

    @property
    def spec(self) -> Manifest:
        """The pod's specification."""
        return part(self.template, "spec")

    @property
    def labels(self) -> Manifest:
        """The pod's labels."""
        return part(self.template, "metadata", "labels")

    @property
    def containers(self) -> list[Manifest]:
        """All containers, those that run before the others included."""
        return parts(self.spec, "containers") + parts(self.spec, "initContainers")

    @property
    def container(self) -> Manifest:
        """The one that Ray runs in: KubeRay takes the first."""
        return next(iter(parts(self.spec, "containers")), {})

    @property
    def volumes(self) -> dict[str, Manifest]:
        """Volumes by name."""
        return {word(each, "name"): each for each in parts(self.spec, "volumes")}

    @property
    def mounts(self) -> dict[str, Manifest]:
        """Mounts of Ray's container by path."""
        return mounts_of(self.container)

    @property
    def environment(self) -> dict[str, str]:
        """What Ray's container gets in plain text."""
        return environment_of(self.container)

    @property
    def ports(self) -> dict[str, int]:
        """Named ports."""
        return {
            word(each, "name"): number(each, "containerPort")
            for container in self.containers
            for each in parts(container, "ports")
        }

    @property
    def gpus(self) -> int:
        """GPUs of Ray's container, which an API server takes from limits."""
        amount = part(self.container, "resources", "limits").get("nvidia.com/gpu", 0)
        return int(amount) if str(amount).isdigit() else 0


def mounts_of(container: Manifest) -> dict[str, Manifest]:
    """A container's mounts by path."""
    mounts = parts(container, "volumeMounts")
    return {word(each, "mountPath").rstrip("/"): each for each in mounts}


def environment_of(container: Manifest) -> dict[str, str]:
    """What a container's environment says in plain text."""
    return {word(each, "name"): word(each, "value") for each in parts(container, "env")}


def pods_of(job: Manifest) -> list[Pod]:
    """Every pod that a RayJob describes."""
    return list(_pods(part(job, "spec")))


def ray_pods(job: Manifest) -> list[Pod]:
    """Those that Ray's cluster is made of."""
    return [pod for pod in pods_of(job) if pod.role != "submitter"]


def workers_of(job: Manifest) -> list[Pod]:
    """Those that roles run on."""
    return [pod for pod in pods_of(job) if pod.role == "worker"]


def head_of(job: Manifest) -> Pod:
    """The one that the driver runs on."""
    return next(pod for pod in pods_of(job) if pod.role == "head")


def _pods(spec: Manifest) -> Iterator[Pod]:
    if submitter := part(spec, "submitterPodTemplate"):
        yield Pod("submitter", "submitter", submitter, {}, 1)
    head = part(spec, "rayClusterSpec", "headGroupSpec")
    yield Pod("head", "head", part(head, "template"), part(head, "rayStartParams"), 1)
    for group in parts(spec, "rayClusterSpec", "workerGroupSpecs"):
        name, count = word(group, "groupName"), _count(group)
        yield Pod(name, "worker", part(group, "template"), part(group, "rayStartParams"), count)


def _count(group: Manifest) -> int:
    """As KubeRay counts: no fewer than ``minReplicas``."""
    return max(number(group, "replicas"), number(group, "minReplicas"))
