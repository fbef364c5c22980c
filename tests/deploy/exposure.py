"""Whether anything of a run is reached from outside the cluster, or may ask the Kubernetes API."""

from collections.abc import Iterator

from tests.deploy.lenient import mapping, name_of, text
from tests.deploy.manifests import Manifest

OPEN_TYPES = {"LoadBalancer", "NodePort"}
WAYS_IN = {"Ingress", "Gateway", "HTTPRoute", "Route"}
RIGHTS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def exposure_complaints(manifests: list[Manifest], job: Manifest) -> list[str]:
    """Return them: whoever reaches Ray's ports runs code."""
    return [*_opened(manifests), *_head(mapping(job, "spec", "rayClusterSpec", "headGroupSpec"))]


def _opened(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        kind, name = text(each, "kind"), name_of(each)
        if kind == "Service" and text(each, "spec", "type") in OPEN_TYPES:
            yield f"Service {name} is reached from outside: {text(each, 'spec', 'type')}"
        if kind in WAYS_IN:
            yield f"{kind} {name} leads in from outside"
        if kind in RIGHTS:
            yield f"{kind} {name} gives rights, and nothing here asks the Kubernetes API anything"


def _head(group: Manifest) -> Iterator[str]:
    if group.get("enableIngress"):
        yield "the head has an Ingress: enableIngress"
    kinds = {text(group, "serviceType"), text(group, "headService", "spec", "type")}
    for kind in sorted(kinds & OPEN_TYPES):
        yield f"the head's Service is reached from outside: {kind}"
