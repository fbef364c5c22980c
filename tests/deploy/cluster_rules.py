"""KubeRay's rules for the cluster of a RayJob (`ValidateRayClusterSpec`), and ours for groups.

Each function returns what is wrong, a sentence each.
"""

import re
from collections import Counter
from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from tests.deploy.lenient import is_whole, mapping, mappings, text
from tests.deploy.manifests import DEPLOY, Manifest

LOCK = DEPLOY.parent / "requirements" / "cpu.txt"
TOKENS_SINCE = Version("2.52")
STATED_TWICE = ("num-cpus", "num-gpus", "memory", "resources")
"""What rayStartParams may say of a group's resources."""


def cluster_complaints(cluster: Manifest) -> Iterator[str]:
    """Yield which of the operator's rules a rayClusterSpec breaks."""
    yield from _version(cluster)
    yield from _environment(cluster)
    names = Counter(text(group, "groupName") for group in mappings(cluster, "workerGroupSpecs"))
    yield from (f"there are {count} groups {name}" for name, count in names.items() if count > 1)
    yield from _any_group("head", mapping(cluster, "headGroupSpec"))
    for group in mappings(cluster, "workerGroupSpecs"):
        name = f"group {text(group, 'groupName') or 'without a name'}"
        yield from _any_group(name, group)
        yield from _worker_group(name, group)


def pinned_ray() -> str:
    """The version of Ray that the image installs."""
    (version,) = re.findall(r"^ray==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return version


def _version(cluster: Manifest) -> Iterator[str]:
    stated, version = cluster.get("rayVersion"), None
    try:
        version = None if stated is None else Version(str(stated))
    except InvalidVersion:
        yield f"rayVersion {stated} is no version"
    if stated != pinned_ray():
        yield f"rayVersion is {stated}, and the image has Ray {pinned_ray()}"
    if mapping(cluster, "authOptions").get("mode") != "token":
        yield "token authentication is off: whoever reaches Ray's ports runs code"
    elif version is None or version < TOKENS_SINCE:
        yield f"token authentication needs rayVersion {TOKENS_SINCE} or later stated"


def _environment(cluster: Manifest) -> Iterator[str]:
    """Variables of the head by which a feature would be on that the manifest does not ask for."""
    first = mappings(cluster, "headGroupSpec", "template", "spec", "containers")[:1]
    named = {text(each, "name") for container in first for each in mappings(container, "env")}
    if "RAY_REDIS_ADDRESS" in named and "gcsFaultToleranceOptions" not in cluster:
        yield "RAY_REDIS_ADDRESS needs gcsFaultToleranceOptions"
    if "RAY_enable_autoscaler_v2" in named and not cluster.get("enableInTreeAutoscaling"):
        yield "RAY_enable_autoscaler_v2 needs enableInTreeAutoscaling"


def _any_group(name: str, group: Manifest) -> Iterator[str]:
    if not mappings(group, "template", "spec", "containers"):
        yield f"{name}: there is no container"
    parameters = mapping(group, "rayStartParams")
    for key, value in parameters.items():
        if not isinstance(value, str):
            yield f"{name}: rayStartParams.{key} is no string"
    if mapping(group, "resources") and any(parameters.get(key) for key in STATED_TWICE):
        yield f"{name}: resources are stated twice, in rayStartParams and in the group's own"
    if "labels" in parameters:
        yield f"{name}: rayStartParams.labels is not taken, the group's own labels are"


def _worker_group(name: str, group: Manifest) -> Iterator[str]:
    stated = (group.get(key) for key in ("minReplicas", "replicas", "maxReplicas"))
    bounds = [each for each in stated if is_whole(each)]
    if len(bounds) < 3:
        yield f"{name}: minReplicas, replicas and maxReplicas are not all stated as whole numbers"
    elif [0, *bounds] != sorted([0, *bounds]):
        yield f"{name}: replicas are not between minReplicas and maxReplicas"
    if group.get("suspend"):
        yield f"{name}: its own suspend needs the feature gate RayJobDeletionPolicy"
    if not text(group, "groupName"):
        yield f"{name}: there is no groupName"
