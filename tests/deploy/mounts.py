"""Where pods keep what they write, and where they find what they read.

Each function returns what is wrong, a sentence each.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.deploy.lenient import mapping, mappings, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import Pod, mounts_of, pods_of, ray_pods
from tests.deploy.quantities import quantity

DATA = "/data"
RECIPE = "/etc/dpkd"
KEYS = "/etc/dpkd-keys"
SECRET = "dpkd-keys"


def mount_complaints(job: Manifest) -> list[str]:
    """Return them."""
    rules = (_data, _temporary, _shared_memory, _recipe, _keys)
    found = [
        f"{pod.where}: {complaint}"
        for pod in ray_pods(job)
        for rule in rules
        for complaint in rule(pod)
    ]
    twice = [f"{pod.where}: {complaint}" for pod in pods_of(job) for complaint in _twice(pod)]
    return [*found, *twice, *_one_claim(job)]


def writable(pod: Pod, container: Manifest, path: str) -> bool:
    """Whether a place lies below a mount that the container may write to."""
    inside = [
        mount
        for mount in mounts_of(container)
        if mount and PurePosixPath(path).is_relative_to(mount)
    ]
    if not inside or ".." in PurePosixPath(path).parts:
        return False
    nearest = mounts_of(container)[max(inside, key=len)]
    volume = pod.volumes.get(text(nearest, "name"), {})
    claim = mapping(volume, "persistentVolumeClaim")
    kept = bool(claim) and not claim.get("readOnly")
    return not nearest.get("readOnly") and (kept or "emptyDir" in volume)


def _at(pod: Pod, path: str) -> tuple[Manifest, Manifest]:
    """The mount at a path and its volume."""
    mount = pod.mounts.get(path, {})
    return mount, pod.volumes.get(text(mount, "name"), {})


def _data(pod: Pod) -> Iterator[str]:
    mount, volume = _at(pod, DATA)
    if not text(volume, "persistentVolumeClaim", "claimName"):
        yield f"no claim is mounted at {DATA}: what is written there goes with the pod"
    if mount.get("readOnly") or mapping(volume, "persistentVolumeClaim").get("readOnly"):
        yield f"{DATA} is mounted to be read only"
    if mount.get("subPath") or mount.get("subPathExpr"):
        yield f"{DATA} is a part of the claim: pods see it under different paths"
    for path in pod.mounts:
        if path.startswith(f"{DATA}/"):
            yield f"the mount at {path} hides what the claim has there"


def _one_claim(job: Manifest) -> Iterator[str]:
    claims = {
        text(_at(pod, DATA)[1], "persistentVolumeClaim", "claimName") for pod in ray_pods(job)
    }
    if len(claims) > 1:
        yield f"{DATA} is not the same claim in every pod: {', '.join(sorted(claims))}"


def _temporary(pod: Pod) -> Iterator[str]:
    mount, volume = _at(pod, "/tmp")
    if "emptyDir" not in volume or mount.get("readOnly"):
        yield "/tmp is no emptyDir to write to"
    elif quantity(mapping(volume, "emptyDir").get("sizeLimit")) is None:
        yield "/tmp has no sizeLimit: it may fill the node's disk"


def _shared_memory(pod: Pod) -> Iterator[str]:
    mount, volume = _at(pod, "/dev/shm")
    if text(volume, "emptyDir", "medium") != "Memory" or mount.get("readOnly"):
        yield "/dev/shm is no emptyDir in memory: Ray's object store would go to the disk"


def _recipe(pod: Pod) -> Iterator[str]:
    mount, volume = _at(pod, RECIPE)
    if pod.role == "head" and not text(volume, "configMap", "name"):
        yield f"no recipe is mounted at {RECIPE}"
    if mount and mount.get("readOnly") is not True:
        yield f"the recipe at {RECIPE} may be written to"


def _keys(pod: Pod) -> Iterator[str]:
    mount, volume = _at(pod, KEYS)
    if text(volume, "secret", "secretName") != SECRET:
        yield f"the Secret {SECRET} is not mounted at {KEYS}"
    elif mapping(volume, "secret").get("optional") is not True:
        yield f"does not start without the Secret {SECRET}: it is not optional"
    if mount and mount.get("readOnly") is not True:
        yield f"the keys at {KEYS} may be written to"


def _twice(pod: Pod) -> Iterator[str]:
    volumes = Counter(text(each, "name") for each in mappings(pod.spec, "volumes"))
    yield from (f"two volumes are called {name}" for name, n in volumes.items() if n > 1)
    for container in pod.containers:
        mounts = mappings(container, "volumeMounts")
        paths = Counter(text(each, "mountPath").rstrip("/") for each in mounts)
        yield from (f"two volumes are mounted at {path}" for path, n in paths.items() if n > 1)
        for each in mounts:
            if text(each, "name") not in volumes:
                yield f"there is no volume {text(each, 'name')!r} to mount"
