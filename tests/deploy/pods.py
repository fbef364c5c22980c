"""A RayJob's pods as the rules read them; where a manifest is not as it should be, empty."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.deploy.lenient import mapping, mappings, number, text
from tests.deploy.manifests import Manifest


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
        return mapping(self.template, "spec")

    @property
    def labels(self) -> Manifest:
        """The pod's labels."""
        return mapping(self.template, "metadata", "labels")

    @property
    def containers(self) -> list[Manifest]:
        """All containers, those that run before the others included."""
        return mappings(self.spec, "containers") + mappings(self.spec, "initContainers")

    @property
    def container(self) -> Manifest:
        """The one that Ray runs in: KubeRay takes the first."""
        return next(iter(mappings(self.spec, "containers")), {})

    @property
    def volumes(self) -> dict[str, Manifest]:
        """Volumes by name."""
        return {text(each, "name"): each for each in mappings(self.spec, "volumes")}

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
            text(each, "name"): number(each, "containerPort")
            for container in self.containers
            for each in mappings(container, "ports")
        }

    @property
    def gpus(self) -> int:
        """GPUs of Ray's container, which an API server takes from limits."""
        amount = mapping(self.container, "resources", "limits").get("nvidia.com/gpu", 0)
        return int(amount) if str(amount).isdigit() else 0


def mounts_of(container: Manifest) -> dict[str, Manifest]:
    """A container's mounts by path."""
    mounts = mappings(container, "volumeMounts")
    return {text(each, "mountPath").rstrip("/"): each for each in mounts}


def environment_of(container: Manifest) -> dict[str, str]:
    """What a container's environment says in plain text."""
    return {text(each, "name"): text(each, "value") for each in mappings(container, "env")}


def pods_of(job: Manifest) -> list[Pod]:
    """Every pod that a RayJob describes."""
    return list(_pods(mapping(job, "spec")))


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
    if "submitterPodTemplate" in spec:
        submitter = mapping(spec, "submitterPodTemplate")
        yield Pod("submitter", "submitter", submitter, {}, 1)
    head = mapping(spec, "rayClusterSpec", "headGroupSpec")
    yield Pod("head", "head", mapping(head, "template"), mapping(head, "rayStartParams"), 1)
    for group in mappings(spec, "rayClusterSpec", "workerGroupSpecs"):
        name, count = text(group, "groupName") or "a group without a name", _count(group)
        yield Pod(
            name, "worker", mapping(group, "template"), mapping(group, "rayStartParams"), count
        )


def _count(group: Manifest) -> int:
    """As KubeRay counts: no fewer than ``minReplicas``."""
    return max(number(group, "replicas"), number(group, "minReplicas"))


def templates_of(job: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Each pod template of a RayJob, under the name of what it is for."""
    for pod in pods_of(job):
        yield pod.where, pod.template
