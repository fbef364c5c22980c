"""Every NetworkPolicy of an overlay does what it is there for, and an error in one is caught."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.complaints import complaints
from tests.deploy.manifests import OVERLAYS, Manifest, built, one
from tests.deploy.neighbours import pods_of_run
from tests.deploy.network import may_reach
from tests.deploy.policy_model import read_policies

DPKD = {"app.kubernetes.io/name": "dpkd"}
HELM = {"app.kubernetes.io/name": "kuberay-operator"}
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
SYSTEM = {"kubernetes.io/metadata.name": "kube-system"}
NOT_SYSTEM = {
    "key": "kubernetes.io/metadata.name",
    "operator": "NotIn",
    "values": ["kube-system"],
}
ANYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_of_two_runs_do_not_reach_each_other(overlay):
    ours, theirs = built(overlay), built(overlay)
    for manifest in theirs:
        manifest["metadata"]["namespace"] = "two"
    policies, _ = read_policies([*ours, *theirs])
    for our_pod in pods_of_run(ours):
        for their_pod in pods_of_run(theirs):
            for port in (6379, 8265, 9108, 8080):
                assert not may_reach(policies, our_pod, their_pod, port)
                assert not may_reach(policies, their_pod, our_pod, port)


def policy(manifests: list[Manifest], name: str) -> Manifest:
    return one(manifests, "NetworkPolicy", f"dpkd-{name}")


def spec(manifests: list[Manifest], name: str) -> Manifest:
    return policy(manifests, name)["spec"]


def rule(manifests: list[Manifest], name: str, direction: str = "ingress") -> Manifest:
    return spec(manifests, name)[direction][0]


def without(name: str) -> Callable[[list[Manifest]], Any]:
    return lambda m: m.remove(policy(m, name))


def added(**more: Any) -> Callable[[list[Manifest]], Any]:
    """A policy beside the others, about every pod of the run."""

    def add(manifests: list[Manifest]) -> None:
        extra = copy.deepcopy(policy(manifests, "deny"))
        extra["metadata"]["name"] = "dpkd-more"
        extra["spec"] = {"podSelector": {"matchLabels": DPKD}, **more}
        manifests.append(extra)

    return add


def _moved(manifests: list[Manifest]) -> None:
    for name in ("deny", "cluster", "names", "operator", "metrics"):
        policy(manifests, name)["metadata"]["namespace"] = "default"


Spoil = Callable[[list[Manifest]], Any]
PLANTED: dict[str, tuple[Spoil, str]] = {
    "no policy that denies": (
        without("deny"),
        "no NetworkPolicy denies head all Ingress that is not allowed",
    ),
    "a denial of what comes in only": (
        lambda m: spec(m, "deny").update(policyTypes=["Ingress"]),
        "no NetworkPolicy denies submitter all Egress that is not allowed",
    ),
    "a denial for the head only": (
        lambda m: spec(m, "deny")["podSelector"]["matchLabels"].update(
            {"ray.io/node-type": "head"}
        ),
        "no NetworkPolicy denies sampler all Ingress that is not allowed",
    ),
    "no names": (
        without("names"),
        "head cannot reach kube-dns on 53/UDP, 53/TCP, and must",
    ),
    "names over TCP only": (
        lambda m: rule(m, "names", "egress")["ports"].pop(0),
        "submitter cannot reach kube-dns on 53/UDP, and must",
    ),
    "names over UDP only": (
        lambda m: rule(m, "names", "egress")["ports"].pop(1),
        "learner cannot reach kube-dns on 53/TCP, and must",
    ),
    "names on another port": (
        lambda m: rule(m, "names", "egress")["ports"][0].update(port=54),
        "teacher can reach kube-dns on 54/UDP, and must not",
    ),
    "names of another namespace": (
        lambda m: rule(m, "names", "egress")["to"][0]["namespaceSelector"].update(
            matchLabels={"kubernetes.io/metadata.name": "elsewhere"}
        ),
        "head can reach a kube-dns of another namespace on 53/TCP, 53/UDP, and must not",
    ),
    "names of the run's own namespace": (
        lambda m: rule(m, "names", "egress")["to"][0].pop("namespaceSelector"),
        "head cannot reach kube-dns on 53/UDP, 53/TCP, and must",
    ),
    "names of any pod that serves the cluster": (
        lambda m: rule(m, "names", "egress")["to"][0].pop("podSelector"),
        "head can reach the Kubernetes API's pod on 53/TCP, 53/UDP, and must not",
    ),
    "names of anybody, the selectors being two peers": (
        lambda m: rule(m, "names", "egress").update(
            to=[{key: each} for key, each in rule(m, "names", "egress")["to"][0].items()]
        ),
        "sampler can reach the Kubernetes API's pod on 53/TCP, 53/UDP, and must not",
    ),
    "all ports of the names' servers": (
        lambda m: rule(m, "names", "egress").pop("ports"),
        "head can reach kube-dns on 1/TCP",
    ),
    "no policy of the cluster": (
        without("cluster"),
        "submitter cannot reach head on 6379/TCP, 8265/TCP, 10001/TCP, 10002/TCP and 2 more",
    ),
    "a cluster that nothing leaves": (
        lambda m: spec(m, "cluster").pop("egress"),
        "sampler cannot reach head on 6379/TCP",
    ),
    "a cluster that nothing enters": (
        lambda m: spec(m, "cluster").pop("ingress"),
        "learner cannot reach learner on 6379/TCP",
    ),
    "a cluster of another label": (
        lambda m: rule(m, "cluster")["from"][0]["podSelector"].update(
            matchLabels={"app.kubernetes.io/name": "other"}
        ),
        "a stranger in the run's namespace can reach head on 1/TCP",
    ),
    "a cluster of KubeRay's labels": (
        lambda m: rule(m, "cluster")["from"][0]["podSelector"].update(
            matchLabels={"ray.io/is-ray-node": "yes"}
        ),
        "another Ray cluster's head in the run's namespace can reach sampler on 1/TCP",
    ),
    "a cluster without its submitter": (
        lambda m: spec(m, "cluster")["podSelector"].update(
            matchExpressions=[{"key": "ray.io/node-type", "operator": "Exists"}]
        ),
        "submitter cannot reach head on 6379/TCP, 8265/TCP",
    ),
    "a cluster on one port": (
        lambda m: rule(m, "cluster").update(ports=[{"port": 6379}]),
        "sampler cannot reach head on 8265/TCP, 10001/TCP, 10002/TCP, 19999/TCP and 1 more",
    ),
    "a cluster on the ports of Ray's workers": (
        lambda m: rule(m, "cluster").update(ports=[{"port": 6379, "endPort": 19999}]),
        "head cannot reach learner on 44321/TCP, and must",
    ),
    "a cluster that lets in its whole namespace": (
        lambda m: rule(m, "cluster")["from"][0].update(podSelector={}),
        "a pod without labels in the run's namespace can reach head on 1/TCP",
    ),
    "a cluster that goes out to its whole namespace": (
        lambda m: rule(m, "cluster", "egress")["to"][0].update(podSelector={}),
        "head can reach a stranger in the run's namespace on 1/TCP",
    ),
    "a cluster of every namespace": (
        lambda m: rule(m, "cluster")["from"][0].update(namespaceSelector={}),
        "another run's sampler can reach head on 1/TCP",
    ),
    "a cluster that goes out to every namespace": (
        lambda m: rule(m, "cluster", "egress")["to"][0].update(namespaceSelector={}),
        "learner can reach another run's head on 1/TCP",
    ),
    "metrics over UDP": (
        lambda m: rule(m, "metrics")["ports"][0].update(protocol="UDP"),
        "Prometheus cannot reach head on 9108/TCP, and must",
    ),
    "metrics that go out": (
        lambda m: spec(m, "metrics").update(policyTypes=["Egress"]),
        "Prometheus cannot reach teacher on 9120/TCP, 9140/TCP, 9141/TCP, 8080/TCP, and must",
    ),
    "metrics for every namespace": (
        lambda m: rule(m, "metrics")["from"][0].update(namespaceSelector={}),
        "a pod of another namespace can reach head on 8080/TCP",
    ),
    "metrics for every address": (
        lambda m: rule(m, "metrics").update({"from": [ANYWHERE]}),
        "an address of the internet can reach learner on 8080/TCP",
    ),
    "metrics for the run's namespace": (
        lambda m: rule(m, "metrics").update({"from": [{"podSelector": {}}]}),
        "Prometheus cannot reach sampler on 9110/TCP, 9140/TCP, 9141/TCP, 8080/TCP, and must",
    ),
    "metrics on every port": (
        lambda m: rule(m, "metrics").update(ports=[{"port": 1, "endPort": 65535}]),
        "Prometheus can reach head on 1/TCP",
    ),
    "metrics on the dashboard, too": (
        lambda m: rule(m, "metrics")["ports"].append({"port": 8265}),
        "Prometheus can reach head on 8265/TCP, and must not",
    ),
    "metrics on the learners' first port only": (
        lambda m: rule(m, "metrics")["ports"][0].update(endPort=9130),
        "Prometheus cannot reach learner on 9131/TCP, 9132/TCP, 9133/TCP, 9140/TCP and 1 more",
    ),
    "metrics by names, without Ray's": (
        lambda m: rule(m, "metrics").update(
            ports=[{"port": name} for name in ("driver", "sampler", "teacher", "learner")]
        ),
        "Prometheus cannot reach head on 8080/TCP, and must",
    ),
    "a network that keeps Prometheus out": (
        without("metrics"),
        "Prometheus cannot reach head on 9108/TCP, 8080/TCP, and must",
    ),
    "a network that keeps the operator out": (
        lambda m: rule(m, "operator")["from"].pop(),
        "the operator that kustomize installs in default cannot reach head on 8265/TCP, and must",
    ),
    "an operator of Helm's that is kept out": (
        lambda m: rule(m, "operator")["from"].pop(0),
        "the operator that an old Helm installs in kuberay-operator cannot reach head on 8265/TCP",
    ),
    "an operator of the run's namespace only": (
        lambda m: [peer.pop("namespaceSelector") for peer in rule(m, "operator")["from"]],
        "the operator that Helm installs in kuberay-operator cannot reach head on 8265/TCP",
    ),
    "an operator that asks workers": (
        lambda m: spec(m, "operator")["podSelector"]["matchLabels"].update(
            {"ray.io/node-type": "worker"}
        ),
        "the operator that Helm installs in default can reach sampler on 8265/TCP, and must not",
    ),
    "an operator that asks every pod": (
        lambda m: spec(m, "operator").update(podSelector={}),
        "the operator that Helm installs in default can reach submitter on 8265/TCP, and must not",
    ),
    "an operator that reaches the GCS": (
        lambda m: rule(m, "operator")["ports"].append({"port": 6379}),
        "the operator that Helm installs in default can reach head on 6379/TCP, and must not",
    ),
    "an operator that reaches every port": (
        lambda m: rule(m, "operator").pop("ports"),
        "the operator that kustomize installs in default can reach head on 1/TCP",
    ),
    "an operator that is any pod": (
        lambda m: rule(m, "operator").update({"from": [{"namespaceSelector": {}}]}),
        "another run's submitter can reach head on 8265/TCP, and must not",
    ),
    "an operator on a port without a name": (
        lambda m: rule(m, "operator").update(ports=[{"port": "dashbord"}]),
        "the operator that Helm installs in default cannot reach head on 8265/TCP, and must",
    ),
    "policies of another namespace": (_moved, "NetworkPolicy dpkd-deny is in default, the run in"),
    "a policy of another namespace": (
        lambda m: policy(m, "names")["metadata"].update(namespace="kube-system"),
        "NetworkPolicy dpkd-names is in kube-system, the run in dpkd",
    ),
    "everything may go out": (
        added(egress=[{}], policyTypes=["Egress"]),
        "head can reach the Kubernetes API on 1/TCP",
    ),
    "HTTPS may go out": (
        added(egress=[{"ports": [{"port": 443}]}], policyTypes=["Egress"]),
        "sampler can reach an address of the internet on 443/TCP, and must not",
    ),
    "the internet but not private addresses": (
        added(
            egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}],
            policyTypes=["Egress"],
        ),
        "head can reach an address of the internet on 1/TCP",
    ),
    "the internet by IPv6": (
        added(egress=[{"to": [{"ipBlock": {"cidr": "::/0"}}]}], policyTypes=["Egress"]),
        "head can reach an IPv6 address of the internet on 1/TCP",
    ),
    "the Kubernetes API": (
        added(
            egress=[{"to": [{"ipBlock": {"cidr": "10.96.0.1/32"}}], "ports": [{"port": 443}]}],
            policyTypes=["Egress"],
        ),
        "teacher can reach the Kubernetes API on 443/TCP, and must not",
    ),
    "metrics that are pushed": (
        added(
            egress=[{"to": [{"namespaceSelector": {"matchLabels": MONITORING}}]}],
            policyTypes=["Egress"],
        ),
        "learner can reach Prometheus on 1/TCP",
    ),
    "an operator that pods ask": (
        added(
            egress=[{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": HELM}}]}],
            policyTypes=["Egress"],
        ),
        "head can reach the operator that an old Helm installs in default on 1/TCP",
    ),
    "names' servers that come in": (
        added(ingress=[{"from": [{"namespaceSelector": {"matchLabels": SYSTEM}}]}]),
        "kube-dns can reach head on 1/TCP",
    ),
    "everything may come in": (
        added(ingress=[{}]),
        "an address of the internet can reach head on 1/TCP",
    ),
    "every other namespace may come in": (
        added(ingress=[{"from": [{"namespaceSelector": {"matchExpressions": [NOT_SYSTEM]}}]}]),
        "a pod of another namespace can reach submitter on 1/TCP",
    ),
    "a range that ends before it begins": (
        lambda m: rule(m, "metrics")["ports"][0].update(endPort=9100),
        "NetworkPolicy dpkd-metrics: spec.ingress.0.ports.0: endPort 9100 does not end a range",
    ),
    "an operator that is none": (
        lambda m: spec(m, "cluster")["podSelector"].update(
            matchExpressions=[{"key": "a", "operator": "Equals", "values": ["b"]}]
        ),
        "NetworkPolicy dpkd-cluster: spec.podSelector.matchExpressions.0.operator",
    ),
    "a peer that is nobody": (
        lambda m: rule(m, "operator")["from"].append({}),
        "NetworkPolicy dpkd-operator: spec.ingress.0.from.2: a peer is selectors or an ipBlock",
    ),
    "a head with another label": (
        lambda m: one(m, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"][
            "metadata"
        ]["labels"].update({"app.kubernetes.io/name": "other"}),
        "a pod of another namespace can reach head on 1/TCP",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    spoil, said = PLANTED[error]
    manifests = built("gpu")
    spoil(manifests)
    found = complaints(manifests, tmp_path)
    assert any(said in complaint for complaint in found), found
