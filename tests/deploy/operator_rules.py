"""What definitions do not say and a cluster insists on: KubeRay's rules for a RayJob, and ours.

Each function returns what is wrong, a sentence each.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.cluster_rules import cluster_complaints
from tests.deploy.lenient import containers_of, is_whole, mapping, mappings, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import templates_of
from tests.deploy.quantities import quantity
from tests.deploy.resources import memory_of, resource_complaints

MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
LONGEST_NAME = 47
"""KubeRay makes names of its own out of a job's."""
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
EXPANDED = ("$(", "`", ";", "&&", "|")
"""What a shell does not pass on. Two of them read an entrypoint, the submitter's and the head's;
quotes are gone at the second."""
LEAST = {
    **{"ttlSecondsAfterFinished": 0, "backoffLimit": 0},
    **{"activeDeadlineSeconds": 1, "preRunningDeadlineSeconds": 1},
}
KUEUE = "kueue.x-k8s.io/"
QUEUE = f"{KUEUE}queue-name"


def job_complaints(job: Manifest) -> list[str]:
    """Return which of the operator's rules a RayJob breaks (`ValidateRayJobSpec`)."""
    spec = mapping(job, "spec")
    return [
        *_name(text(job, "metadata", "name")),
        *_submission(spec),
        *_sidecar(spec),
        *_life(spec),
        *_waiting(spec, mapping(job, "metadata", "labels")),
        *_selected(spec),
        *cluster_complaints(mapping(spec, "rayClusterSpec")),
    ]


def _name(name: str) -> Iterator[str]:
    if len(name) > LONGEST_NAME:
        yield f"the name {name} is longer than {LONGEST_NAME} characters"
    if not DNS_1035.fullmatch(name):
        yield f"the name {name} is no DNS-1035 label: a-z first, then a-z, 0-9 and dashes"


def _submission(spec: Manifest) -> Iterator[str]:
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in MODES:
        yield f"submissionMode {mode} is none of {', '.join(MODES)}"
    if mode != "InteractiveMode":
        yield from _entrypoint(text(spec, "entrypoint"))
    elif spec.get("backoffLimit"):
        yield "backoffLimit does not go with InteractiveMode"
    if mode != "K8sJobMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield f"submissionMode {mode} starts no submitter, but one is described"
    try:
        environment = yaml.safe_load(text(spec, "runtimeEnvYAML") or "{}")
    except yaml.YAMLError:
        environment = None
    if not isinstance(environment, dict):
        yield "runtimeEnvYAML is no mapping"


def _entrypoint(line: str) -> Iterator[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        yield f"the entrypoint is no command line: {error}"
        return
    if not words:
        yield "there is no entrypoint"
    for sign in EXPANDED:
        if sign in line:
            yield f"a shell would not pass on the entrypoint's {sign}"


def _sidecar(spec: Manifest) -> Iterator[str]:
    if spec.get("submissionMode") != "SidecarMode":
        return
    head = mapping(spec, "rayClusterSpec", "headGroupSpec", "template", "spec")
    if head.get("restartPolicy", "Never") != "Never":
        yield "SidecarMode needs the head's restartPolicy Never, or none"
    if mapping(spec, "clusterSelector"):
        yield "SidecarMode does not go with clusterSelector"


def _life(spec: Manifest) -> Iterator[str]:
    ends = spec.get("shutdownAfterJobFinishes", False)
    for key, least in LEAST.items():
        value = spec.get(key)
        if value is not None and not is_whole(value):
            yield f"{key} {value} is no whole number"
        elif value is not None and value < least:
            yield f"{key} {value} is less than {least}"
    if spec.get("ttlSecondsAfterFinished") and not ends:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if "deletionStrategy" in spec and (ends or spec.get("ttlSecondsAfterFinished")):
        yield (
            "deletionStrategy does not go with shutdownAfterJobFinishes or ttlSecondsAfterFinished"
        )


def _waiting(spec: Manifest, labels: Manifest) -> Iterator[str]:
    """A job that waits, for Kueue: nobody else here would start it."""
    waits = spec.get("suspend")
    if waits and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend needs shutdownAfterJobFinishes"
    if waits and mapping(spec, "clusterSelector"):
        yield "suspend does not go with clusterSelector"
    if waits and not text(labels, QUEUE):
        yield f"suspend: nobody starts the job without the label {QUEUE}"
    for label in labels:
        if str(label).startswith(KUEUE) and waits is not True:
            yield f"the label {label} needs suspend: true"


def _selected(spec: Manifest) -> Iterator[str]:
    if not spec.get("rayClusterSpec") and not spec.get("clusterSelector"):
        yield "there is neither rayClusterSpec nor clusterSelector"
    if spec.get("clusterSelector") and not text(spec, "clusterSelector", "ray.io/cluster"):
        yield "clusterSelector names no ray.io/cluster"


def pod_complaints(job: Manifest) -> list[str]:
    """Return what we do not want in a pod, whatever a namespace lets in."""
    return [
        f"{name}: {complaint}"
        for name, template in templates_of(job)
        for complaint in (*_containers(mapping(template, "spec")), *_end(template))
    ]


def _containers(spec: Manifest) -> Iterator[str]:
    for container in containers_of(spec):
        image = text(container, "image")
        if not _names_version(image):
            yield f"image {image} names no version"
        yield from resource_complaints(container)
        yield from _memory(spec, container)
    for container in mappings(spec, "containers"):
        yield from _mounts(spec, container)


def _names_version(image: str) -> bool:
    name, _, digest = image.rpartition("/")[2].partition("@")
    return bool(digest) or name.partition(":")[2] not in ("", "latest")


def _memory(spec: Manifest, container: Manifest) -> Iterator[str]:
    limit = mapping(container, "resources", "limits").get("memory")
    if limit is None:
        yield "has no memory limit"
    shared = [mapping(each, "emptyDir") for each in mappings(spec, "volumes")]
    sizes = [each.get("sizeLimit") for each in shared if each.get("medium") == "Memory"]
    if any(quantity(size) is None for size in sizes):
        yield "a volume in memory has no sizeLimit"
    elif quantity(limit) is not None and sum(map(memory_of, sizes)) > memory_of(limit) / 2:
        yield "more than half of its memory limit may go into /dev/shm"


def _mounts(spec: Manifest, container: Manifest) -> Iterator[str]:
    volumes = {text(volume, "name") for volume in mappings(spec, "volumes")}
    mounted = {text(mount, "name") for mount in mappings(container, "volumeMounts")}
    if volumes != mounted:
        yield f"volumes and mounts differ: {', '.join(sorted(volumes ^ mounted))}"


def _end(template: Manifest) -> Iterator[str]:
    spec = mapping(template, "spec")
    if "recipe" not in {text(each, "name") for each in mappings(spec, "volumes")}:
        return
    grace = spec.get("terminationGracePeriodSeconds")
    asked = quantity(_wait(spec))
    if asked is None:
        yield "RAY_JOB_STOP_WAIT_TIME_S is no number"
    elif not is_whole(grace) or grace <= asked:
        yield "is killed before the driver has had its time to save"


def _wait(spec: Manifest) -> Any:
    """Seconds that a driver gets to save, as the first container's environment has it."""
    first = mappings(spec, "containers")[:1]
    pairs = [each for container in first for each in mappings(container, "env")]
    named = {text(each, "name"): each.get("value") for each in pairs}
    return named.get("RAY_JOB_STOP_WAIT_TIME_S", 0)
