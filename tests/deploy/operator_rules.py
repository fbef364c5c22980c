"""What definitions do not say and a cluster insists on: KubeRay's rules, Pod Security's, ours.

Each function returns what is wrong, a sentence each.
"""

import shlex
from collections.abc import Iterator
from typing import Any

import yaml
from packaging.version import Version

from tests.deploy.manifests import Manifest, environment_of, pod_templates

MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
LONGEST_NAME = 47
"""KubeRay makes names of its own out of a job's."""
TOKENS_SINCE = Version("2.52")


def job_complaints(job: Manifest) -> list[str]:
    """Return which of the operator's rules a RayJob breaks."""
    return [*_submission(job), *_life(job["spec"]), *_cluster(job["spec"]["rayClusterSpec"])]


def _submission(job: Manifest) -> Iterator[str]:
    spec, name = job["spec"], job["metadata"]["name"]
    mode = spec.get("submissionMode", "K8sJobMode")
    if len(name) > LONGEST_NAME:
        yield f"the name {name} is longer than {LONGEST_NAME} characters"
    if mode not in MODES:
        yield f"submissionMode {mode} is none of {', '.join(MODES)}"
    if mode != "InteractiveMode" and not shlex.split(spec.get("entrypoint", "")):
        yield "there is no entrypoint"
    if mode != "K8sJobMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield f"submissionMode {mode} starts no submitter, but one is described"
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML is no mapping"


def _life(spec: Manifest) -> Iterator[str]:
    ends = spec.get("shutdownAfterJobFinishes", False)
    if spec.get("ttlSecondsAfterFinished") and not ends:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if spec.get("suspend") and not ends:
        yield "suspend needs shutdownAfterJobFinishes"
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit is negative"
    if spec.get("backoffLimit") and "resume=auto" not in spec.get("entrypoint", ""):
        yield "a retry is a new cluster, and begins anew without resume=auto"


def _cluster(cluster: Manifest) -> Iterator[str]:
    version = cluster.get("rayVersion")
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "token authentication is off: whoever reaches Ray's ports runs code"
    elif version is None or Version(version) < TOKENS_SINCE:
        yield f"token authentication needs rayVersion {TOKENS_SINCE} or later stated"
    for group in cluster.get("workerGroupSpecs", []):
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if least is None or most is None or not least <= group.get("replicas", 0) <= most:
            name = group["groupName"]
            yield f"group {name}: replicas are not between minReplicas and maxReplicas"
    for where, parameters in _start_parameters(cluster):
        for key, value in parameters.items():
            if not isinstance(value, str):
                yield f"{where}: rayStartParams.{key} is no string"


def _start_parameters(cluster: Manifest) -> Iterator[tuple[str, Manifest]]:
    yield "head", cluster["headGroupSpec"].get("rayStartParams", {})
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group.get("rayStartParams", {})


OPERATORS = {
    "Helm": {
        "app.kubernetes.io/name": "kuberay-operator",
        "app.kubernetes.io/component": "kuberay-operator",
    },
    "an old Helm": {"app.kubernetes.io/name": "kuberay-operator"},
    "kustomize": {
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/component": "kuberay-operator",
    },
}
"""Labels of the operator's pods, by what installed it (helm-chart/ and ray-operator/config/manager
of KubeRay)."""


def operator_complaints(policies: list[Manifest]) -> list[str]:
    """Return which installations of the operator no policy lets in to the dashboard."""
    let_in = [
        peer["podSelector"]["matchLabels"].items()
        for policy in policies
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        # In whatever namespace it is.
        if peer.get("namespaceSelector") == {} and 8265 in {port["port"] for port in rule["ports"]}
    ]
    return [
        f"no NetworkPolicy lets in the operator that {who} installs"
        for who, labels in OPERATORS.items()
        if not any(wanted <= labels.items() for wanted in let_in)
    ]


def pod_complaints(job: Manifest) -> list[str]:
    """Return what a restricted namespace would refuse, and what we do not want in a pod."""
    return [
        f"{name}: {complaint}"
        for name, template in pod_templates(job)
        for complaint in (*_pod(template["spec"]), *_containers(template["spec"]), *_end(template))
    ]


def _pod(spec: Manifest) -> Iterator[str]:
    context = spec.get("securityContext", {})
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "holds a service account's token that it does not need"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"shares {key} with the node"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a folder of the node"


def _containers(spec: Manifest) -> Iterator[str]:
    for container in spec["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield "may gain privileges"
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"
        if not context.get("readOnlyRootFilesystem"):
            yield "may write to its own image"
        if container["image"].rpartition(":")[2] in ("latest", container["image"]):
            yield f"image {container['image']} names no version"
        yield from _memory(spec, container)
        yield from _mounts(spec, container)


def _memory(spec: Manifest, container: Manifest) -> Iterator[str]:
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    if limit is None:
        yield "has no memory limit"
        return
    shared = [each["emptyDir"] for each in spec["volumes"] if "emptyDir" in each]
    held = sum(memory_of(each["sizeLimit"]) for each in shared if each.get("medium") == "Memory")
    if held > memory_of(limit) / 2:
        yield "more than half of its memory limit may go into /dev/shm"


def _mounts(spec: Manifest, container: Manifest) -> Iterator[str]:
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    if volumes != mounted:
        yield f"volumes and mounts differ: {', '.join(sorted(volumes ^ mounted))}"


def _end(template: Manifest) -> Iterator[str]:
    grace = template["spec"].get("terminationGracePeriodSeconds")
    asked = float(environment_of(template).get("RAY_JOB_STOP_WAIT_TIME_S", 0))
    if "recipe" in {each["name"] for each in template["spec"].get("volumes", [])} and (
        grace is None or grace <= asked
    ):
        yield "is killed before the driver has had its time to save"


def memory_of(quantity: Any) -> float:
    """A quantity of memory in bytes."""
    number, unit = str(quantity)[:-2], str(quantity)[-2:]
    return float(number) * {"Mi": 2.0**20, "Gi": 2.0**30}[unit]
