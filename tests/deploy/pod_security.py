"""The "restricted" Pod Security Standard, whole, and what we ask of a pod beyond it.

Each function returns what is wrong, a sentence each. The standard:
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

from tests.deploy.lenient import containers_of, mapping, mappings, sequence, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import templates_of

ENFORCE = "pod-security.kubernetes.io/enforce"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
"""Prefix of the annotations that named AppArmor's profiles before there was a field."""
CONFINED = ("RuntimeDefault", "Localhost")
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def security_complaints(manifests: list[Manifest]) -> list[str]:
    """Return what a restricted namespace would refuse, and whether there is one around the pods."""
    return [
        *_namespaces(manifests),
        *(
            f"{where}: {complaint}"
            for manifest in manifests
            for where, template in _templates(manifest)
            for complaint in _template(template)
        ),
        *(complaint for manifest in manifests for complaint in _submitter(manifest)),
    ]


def _templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The pod templates of whatever starts pods."""
    kind, spec = manifest.get("kind"), mapping(manifest, "spec")
    if kind == "RayJob":
        yield from templates_of(manifest)
    elif kind == "Pod":
        yield "Pod", manifest
    elif "jobTemplate" in spec:
        yield f"{kind}", mapping(spec, "jobTemplate", "spec", "template")
    elif "template" in spec:
        yield f"{kind}", mapping(spec, "template")


def _namespaces(manifests: list[Manifest]) -> Iterator[str]:
    restricted = [
        text(each, "metadata", "name")
        for each in manifests
        if each.get("kind") == "Namespace"
        and text(each, "metadata", "labels", ENFORCE) == "restricted"
    ]
    if not restricted:
        yield f"no Namespace has the label {ENFORCE}: restricted"
    for manifest in manifests:
        namespace = text(manifest, "metadata", "namespace") or "default"
        if restricted and any(_templates(manifest)) and namespace not in restricted:
            yield f"pods of {manifest.get('kind')} are in {namespace}, which is not restricted"


def _submitter(manifest: Manifest) -> Iterator[str]:
    spec = mapping(manifest, "spec")
    mode = spec.get("submissionMode", "K8sJobMode")
    if manifest.get("kind") != "RayJob" or mode != "K8sJobMode":
        return
    if not mapping(spec, "submitterPodTemplate"):
        yield "KubeRay's own submitter has no security context: submitterPodTemplate is missing"


def _template(template: Manifest) -> Iterator[str]:
    spec = mapping(template, "spec")
    if not mappings(spec, "containers"):
        yield "has no container"
    yield from _pod(spec)
    yield from _context(mapping(spec, "securityContext"))
    yield from _annotations(mapping(template, "metadata", "annotations"))
    for container in containers_of(spec):
        name = text(container, "name") or "without a name"
        for complaint in _container(mapping(spec, "securityContext"), container):
            yield f"container {name} {complaint}"


def _pod(spec: Manifest) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"shares {key} with the node"
    for sysctl in mappings(spec, "securityContext", "sysctls"):
        if text(sysctl, "name") not in SYSCTLS:
            yield f"sets sysctl {sysctl.get('name')}, which is not a safe one"
    for volume in mappings(spec, "volumes"):
        yield from _volume(volume)
    if spec.get("automountServiceAccountToken") is not False:
        yield "holds a service account's token that it does not need"


def _volume(volume: Manifest) -> Iterator[str]:
    name, kinds = volume.get("name"), set(volume) - {"name"}
    if "hostPath" in kinds:
        yield f"volume {name} is a folder of the node"
    for kind in sorted(map(str, kinds - VOLUMES - {"hostPath"})):
        yield f"volume {name} is of the kind {kind}, which is not allowed"
    if not kinds:
        yield f"volume {name} does not say of which kind it is"
    if any("serviceAccountToken" in each for each in mappings(volume, "projected", "sources")):
        yield f"volume {name} holds a service account's token"


def _context(context: Manifest) -> Iterator[str]:
    """What neither a pod's security context nor a container's may say."""
    if context.get("runAsUser") == 0:
        yield "runs as root: runAsUser is 0"
    for key in ("seccompProfile", "appArmorProfile"):
        profile = context.get(key)
        if profile is not None and mapping(profile).get("type") not in CONFINED:
            yield f"is not confined: {key} is none of {', '.join(CONFINED)}"
    if (mapping(context, "seLinuxOptions").get("type") or "") not in SELINUX_TYPES:
        yield "is not confined: seLinuxOptions.type is not a container's"
    for key in ("user", "role"):
        if mapping(context, "seLinuxOptions").get(key):
            yield f"sets seLinuxOptions.{key}"
    if mapping(context, "windowsOptions").get("hostProcess"):
        yield "is a hostProcess of the node"


def _annotations(annotations: Manifest) -> Iterator[str]:
    for key, value in annotations.items():
        confined = value == "runtime/default" or str(value).startswith("localhost/")
        if str(key).startswith(APPARMOR) and not confined:
            yield f"container {str(key).removeprefix(APPARMOR)} has AppArmor's profile {value}"


def _container(of_pod: Manifest, container: Manifest) -> Iterator[str]:
    own = mapping(container, "securityContext")
    yield from _context(own)
    yield from _effective(of_pod | {key: each for key, each in own.items() if each is not None})
    yield from _privileges(own)
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its own image"
    for port in mappings(container, "ports"):
        if port.get("hostPort"):
            yield f"takes hostPort {port['hostPort']} of the node"
    for handler in _handlers(container):
        for kind in ("httpGet", "tcpSocket"):
            if mapping(handler, kind).get("host"):
                yield "has a probe or a hook that the node sends to another host"


def _effective(context: Manifest) -> Iterator[str]:
    """What must be said, by the container or else by its pod."""
    if context.get("runAsNonRoot") is not True:
        yield "may run as root"
    if context.get("runAsUser") is None:
        yield "runs as whom its image says: runAsUser is missing"
    if mapping(context, "seccompProfile").get("type") not in CONFINED:
        yield "has no seccomp profile"


def _privileges(context: Manifest) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if context.get("privileged"):
        yield "is privileged"
    if "ALL" not in sequence(context, "capabilities", "drop"):
        yield "keeps capabilities"
    for added in sequence(context, "capabilities", "add"):
        if added != "NET_BIND_SERVICE":
            yield f"adds the capability {added}"
    if context.get("procMount") not in (None, "Default"):
        yield f"has a procMount {context['procMount']}, which shows more of the node"


def _handlers(container: Manifest) -> Iterator[Any]:
    yield from (container.get(probe) for probe in PROBES)
    yield from mapping(container, "lifecycle").values()
