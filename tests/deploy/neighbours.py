"""Who is in a cluster with a run: its pods, whom they need, and whom they must not know."""

from collections.abc import Iterator
from dataclasses import replace

from tests.deploy.lenient import mapping, mappings, number, text
from tests.deploy.manifests import Manifest, of_kind, one
from tests.deploy.network import Address, Peer, Pod
from tests.deploy.pods import templates_of
from tests.deploy.policy_model import Labels, NamedPorts

OPERATORS: dict[str, Labels] = {
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
RAY_LABELS = {"ray.io/is-ray-node": "yes", "app.kubernetes.io/created-by": "kuberay-operator"}
"""What KubeRay gives every pod of a Ray cluster, whosever it is."""
DNS_LABELS = {"k8s-app": "kube-dns"}

DNS = Pod(name="kube-dns", namespace="kube-system", labels=DNS_LABELS, address="10.244.1.2")
PROMETHEUS = Pod(
    name="Prometheus",
    namespace="monitoring",
    labels={"app.kubernetes.io/name": "prometheus"},
    address="10.244.2.3",
)
INTERNET = (
    Address(name="an address of the internet", address="203.0.113.7"),
    Address(name="an IPv6 address of the internet", address="2001:db8::7"),
)
API = (
    Address(name="the Kubernetes API", address="10.96.0.1"),
    Pod(
        name="the Kubernetes API's pod",
        namespace="kube-system",
        labels={"component": "kube-apiserver"},
        address="10.244.1.9",
    ),
)


def pods_of_run(manifests: list[Manifest]) -> list[Pod]:
    """One pod of each template of the RayJob, with the labels that KubeRay adds."""
    job = one(manifests, "RayJob")
    namespace = text(job, "metadata", "namespace") or "default"
    labels = [
        mapping(each, "metadata", "labels") for each in of_kind(manifests, "Namespace", namespace)
    ]
    return [
        Pod(
            name=name,
            namespace=namespace,
            labels=mapping(template, "metadata", "labels") | _added_labels(name),
            namespace_labels=labels[0] if labels else {},
            ports=_named_ports(template),
        )
        for name, template in templates_of(job)
    ]


def _added_labels(name: str) -> dict[str, str]:
    if name == "submitter":
        return {"job-name": "dpkd", "batch.kubernetes.io/job-name": "dpkd"}
    return RAY_LABELS | {"ray.io/node-type": "head" if name == "head" else "worker"}


def _named_ports(template: Manifest) -> NamedPorts:
    return {
        text(port, "name"): (number(port, "containerPort"), port.get("protocol", "TCP"))
        for container in mappings(template, "spec", "containers")
        for port in mappings(container, "ports")
    }


def operators(namespace: str) -> list[Pod]:
    """KubeRay's operator by each way to install it, in namespaces of its own and the run's."""
    return [
        Pod(
            name=f"the operator that {who} installs in {where}",
            namespace=where,
            labels=labels,
            address="10.244.3.4",
        )
        for who, labels in OPERATORS.items()
        for where in ("kuberay-operator", "default", namespace)
    ]


def strangers(pods: list[Pod]) -> Iterator[Peer]:
    """Those that no pod of the run reaches and none is reached by."""
    other_ray = {**RAY_LABELS, "app.kubernetes.io/name": "kuberay", "ray.io/node-type": "head"}
    other_app = {"app.kubernetes.io/name": "other"}
    for name, namespace, labels in (
        ("a stranger in the run's namespace", pods[0].namespace, other_app),
        ("a pod without labels in the run's namespace", pods[0].namespace, {}),
        ("another Ray cluster's head in the run's namespace", pods[0].namespace, other_ray),
        ("a pod of another namespace", "elsewhere", other_app),
        ("another Ray cluster's head in another namespace", "elsewhere", other_ray),
        ("a kube-dns of another namespace", "elsewhere", DNS_LABELS),
    ):
        yield Pod(name=name, namespace=namespace, labels=labels, address="10.244.4.5")
    for pod in pods:
        yield replace(
            pod, name=f"another run's {pod.name}", namespace="another-run", address="10.244.5.6"
        )
    yield from INTERNET
    yield from API
