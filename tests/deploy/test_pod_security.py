"""What the "restricted" standard refuses is caught, wherever in a pod it is written."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.complaints import complaints
from tests.deploy.holes import stumbles
from tests.deploy.manifests import OVERLAYS, Manifest, built, of_kind, one
from tests.deploy.pod_security import ENFORCE, security_complaints
from tests.deploy.pods import templates_of


def template(manifests: list[Manifest], name: str = "head") -> Manifest:
    return dict(templates_of(one(manifests, "RayJob")))[name]


def pod(manifests: list[Manifest], name: str = "head") -> Manifest:
    return template(manifests, name)["spec"]


def container(manifests: list[Manifest], name: str = "head") -> Manifest:
    return pod(manifests, name)["containers"][0]


def of_pod(**more: Any) -> "Spoil":
    return lambda m: pod(m)["securityContext"].update(more)


def of_container(**more: Any) -> "Spoil":
    return lambda m: container(m)["securityContext"].update(more)


def another(kind: str, **more: Any) -> "Spoil":
    """A copy of the head's container among those of a kind, with a looser security context."""

    def spoil(manifests: list[Manifest]) -> None:
        added: Manifest = copy.deepcopy(container(manifests)) | {"name": "another"}
        added["securityContext"].update(more)
        pod(manifests)[kind] = [*pod(manifests).get(kind, []), added]

    return spoil


def volume(**source: Any) -> "Spoil":
    return lambda m: pod(m)["volumes"].append({"name": "another"} | source)


def annotated(profile: str) -> "Spoil":
    key = "container.apparmor.security.beta.kubernetes.io/ray-head"
    return lambda m: template(m)["metadata"].update(annotations={key: profile})


def _unconfined(manifests: list[Manifest]) -> None:
    """Each container says that it is confined; the pod must not say otherwise."""
    pod(manifests)["securityContext"]["seccompProfile"] = {"type": "Unconfined"}
    container(manifests)["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}


def _with_a_pod(manifests: list[Manifest]) -> None:
    manifests.append(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "aside", "namespace": "dpkd"},
            "spec": {"containers": [{"name": "aside", "image": "dpkd:gpu"}]},
        }
    )


Spoil = Callable[[list[Manifest]], Any]
PLANTED: dict[str, tuple[Spoil, str]] = {
    "root, where the pod says otherwise": (
        of_container(runAsNonRoot=False),
        "head: container ray-head may run as root",
    ),
    "nobody says that it is not root": (
        lambda m: pod(m, "submitter").pop("securityContext"),
        "submitter: container ray-job-submitter may run as root",
    ),
    "the user 0 of a pod": (of_pod(runAsUser=0), "head: runs as root: runAsUser is 0"),
    "the user 0 of a container": (
        of_container(runAsUser=0),
        "container ray-head runs as root: runAsUser is 0",
    ),
    "the image's user": (
        lambda m: pod(m)["securityContext"].pop("runAsUser"),
        "runs as whom its image says",
    ),
    "privileges that nobody denies": (
        lambda m: container(m)["securityContext"].pop("allowPrivilegeEscalation"),
        "container ray-head may gain privileges",
    ),
    "a privileged container": (of_container(privileged=True), "is privileged"),
    "privileges of an init container": (
        another("initContainers", allowPrivilegeEscalation=True),
        "container another may gain privileges",
    ),
    "privileges of an ephemeral container": (
        another("ephemeralContainers", allowPrivilegeEscalation=True),
        "container another may gain privileges",
    ),
    "privileges of a second container": (
        another("containers", privileged=True),
        "container another is privileged",
    ),
    "privileges of a worker": (
        lambda m: container(m, "teacher")["securityContext"].update(privileged=True),
        "teacher: container ray-worker is privileged",
    ),
    "no security context": (
        lambda m: container(m).pop("securityContext"),
        "container ray-head keeps capabilities",
    ),
    "capabilities that stay": (of_container(capabilities={"drop": ["NET_RAW"]}), "keeps capab"),
    "a capability more": (
        of_container(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "SYS_PTRACE"]}),
        "adds the capability SYS_PTRACE",
    ),
    "no seccomp profile": (
        lambda m: pod(m)["securityContext"].pop("seccompProfile"),
        "container ray-head has no seccomp profile",
    ),
    "an unconfined container": (
        of_container(seccompProfile={"type": "Unconfined"}),
        "container ray-head is not confined: seccompProfile",
    ),
    "an unconfined pod of confined containers": (_unconfined, "head: is not confined: seccomp"),
    "another procMount": (of_container(procMount="Unmasked"), "has a procMount Unmasked"),
    "the node's network": (lambda m: pod(m).update(hostNetwork=True), "shares hostNetwork"),
    "the node's processes": (lambda m: pod(m).update(hostPID=True), "shares hostPID"),
    "the node's memory": (lambda m: pod(m).update(hostIPC=True), "shares hostIPC"),
    "a port of the node": (
        lambda m: container(m)["ports"][0].update(hostPort=6379),
        "takes hostPort 6379",
    ),
    "a probe of another host": (
        lambda m: container(m).update(
            livenessProbe={"tcpSocket": {"port": 22, "host": "10.0.0.1"}}
        ),
        "sends to another host",
    ),
    "a hook to another host": (
        lambda m: container(m).update(
            lifecycle={"preStop": {"httpGet": {"port": 80, "host": "metadata"}}}
        ),
        "sends to another host",
    ),
    "a sysctl that is not safe": (
        of_pod(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        "sets sysctl kernel.msgmax",
    ),
    "a type of SELinux": (of_pod(seLinuxOptions={"type": "spc_t"}), "seLinuxOptions.type"),
    "a container's type of SELinux": (
        of_container(seLinuxOptions={"type": "spc_t"}),
        "container ray-head is not confined: seLinuxOptions.type",
    ),
    "a user of SELinux": (of_pod(seLinuxOptions={"user": "system_u"}), "sets seLinuxOptions.user"),
    "a role of SELinux": (
        of_container(seLinuxOptions={"role": "sysadm_r"}),
        "sets seLinuxOptions.role",
    ),
    "no AppArmor": (
        of_container(appArmorProfile={"type": "Unconfined"}),
        "container ray-head is not confined: appArmorProfile",
    ),
    "no AppArmor for a pod": (
        of_pod(appArmorProfile={"type": "Unconfined"}),
        "head: is not confined: appArmorProfile",
    ),
    "no AppArmor, as it was said before": (
        annotated("unconfined"),
        "container ray-head has AppArmor's profile unconfined",
    ),
    "a volume of a network": (
        volume(nfs={"server": "nfs", "path": "/"}),
        "volume another is of the kind nfs",
    ),
    "a folder beside what is allowed": (
        lambda m: pod(m)["volumes"][0].update(hostPath={"path": "/"}),
        "volume tmp is a folder of the node",
    ),
    "a volume of nothing": (volume(), "volume another does not say"),
    "a token in a volume": (
        volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        "volume another holds a service account's token",
    ),
    "a token": (
        lambda m: pod(m, "learner").pop("automountServiceAccountToken"),
        "learner: holds a service account's token",
    ),
    "a process of the node": (
        of_pod(windowsOptions={"hostProcess": True}),
        "head: is a hostProcess",
    ),
    "a container that is a process of the node": (
        of_container(windowsOptions={"hostProcess": True}),
        "container ray-head is a hostProcess",
    ),
    "an image that nobody denies to write": (
        lambda m: container(m)["securityContext"].pop("readOnlyRootFilesystem"),
        "may write to its own image",
    ),
    "a pod beside the job": (_with_a_pod, "Pod: container aside may run as root"),
    "KubeRay's own submitter": (
        lambda m: one(m, "RayJob")["spec"].pop("submitterPodTemplate"),
        "KubeRay's own submitter has no security context",
    ),
    "a namespace that is not restricted": (
        lambda m: one(m, "Namespace")["metadata"]["labels"].update({ENFORCE: "baseline"}),
        f"no Namespace has the label {ENFORCE}: restricted",
    ),
    "a namespace that only warns": (
        lambda m: one(m, "Namespace")["metadata"]["labels"].pop(ENFORCE),
        f"no Namespace has the label {ENFORCE}: restricted",
    ),
    "no namespace": (
        lambda m: m.remove(one(m, "Namespace")),
        f"no Namespace has the label {ENFORCE}: restricted",
    ),
    "another namespace": (
        lambda m: one(m, "RayJob")["metadata"].update(namespace="other"),
        "pods of RayJob are in other, which is not restricted",
    ),
    "no namespace of the job": (
        lambda m: one(m, "RayJob")["metadata"].pop("namespace"),
        "pods of RayJob are in default, which is not restricted",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    spoil, said = PLANTED[error]
    manifests = built("gpu")
    assert not any(said in complaint for complaint in security_complaints(manifests))
    spoil(manifests)
    found = complaints(manifests, tmp_path)
    assert any(said in complaint for complaint in found), found


ALLOWED: dict[str, Spoil] = {
    "a container that says itself what its pod does not": lambda m: container(m)[
        "securityContext"
    ].update(pod(m).pop("securityContext")),
    "a profile of the node's": of_container(
        seccompProfile={"type": "Localhost", "localhostProfile": "ray.json"}
    ),
    "a low port": of_container(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    "a safe sysctl": of_pod(sysctls=[{"name": "net.ipv4.tcp_fin_timeout", "value": "30"}]),
    "a container's type": of_pod(seLinuxOptions={"type": "container_t", "level": "s0:c1"}),
    "AppArmor": of_container(appArmorProfile={"type": "RuntimeDefault"}),
    "AppArmor, as it was said before": annotated("localhost/ray"),
    "the default procMount": of_container(procMount="Default"),
    "a volume of a driver's": volume(csi={"driver": "models"}),
    "a probe of its own": lambda m: container(m).update(livenessProbe={"tcpSocket": {"port": 1}}),
    "a key of a container that is null": of_container(runAsNonRoot=None, seccompProfile=None),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_standard_allows_is_let_through(case):
    manifests = built("gpu")
    ALLOWED[case](manifests)
    assert security_complaints(manifests) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_hole_in_a_manifest_makes_it_stumble(overlay):
    manifests = [one(built(overlay), "RayJob"), *of_kind(built(overlay), "Namespace")]
    for manifest in manifests:
        assert stumbles(manifest, lambda: security_complaints(manifests)) == []
