"""Kubernetes' semantics of NetworkPolicies, each in a policy or two whose answer is known."""

import pytest

from tests.deploy.network import Address, Pod, may_reach
from tests.deploy.policy_model import read_policies

WEB = Pod(
    name="web",
    namespace="shop",
    labels={"app": "web", "tier": "front"},
    ports={"http": (8080, "TCP"), "quic": (8443, "UDP")},
    address="10.0.1.1",
)
STORE = Pod(name="store", namespace="shop", labels={"app": "store"}, address="10.0.1.2")
FAR = Pod(
    name="far",
    namespace="far",
    labels={"app": "web"},
    namespace_labels={"team": "red"},
    address="10.0.2.1",
)
OUTSIDE = Address(name="outside", address="203.0.113.7")
PEERS = {"web": WEB, "store": STORE, "far": FAR, "outside": OUTSIDE}


def manifest(**spec):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, **spec},
    }


def policies(*manifests):
    read, findings = read_policies(list(manifests))
    assert findings == []
    return read


def who_reaches_web(*manifests):
    read = policies(*manifests)
    return {name for name, peer in PEERS.items() if may_reach(read, peer, WEB, 80)} - {"web"}


def whom_web_reaches(*manifests):
    read = policies(*manifests)
    return {name for name, peer in PEERS.items() if may_reach(read, WEB, peer, 80)} - {"web"}


EVERYBODY = {"store", "far", "outside"}


def test_without_policies_everybody_reaches_everybody():
    assert who_reaches_web() == whom_web_reaches() == EVERYBODY


@pytest.mark.parametrize(
    ("spec", "incoming", "outgoing"),
    [
        ({}, set(), EVERYBODY),
        ({"policyTypes": []}, set(), EVERYBODY),
        ({"ingress": [{}]}, EVERYBODY, EVERYBODY),
        ({"egress": [{}]}, set(), EVERYBODY),
        ({"egress": []}, set(), EVERYBODY),
        ({"egress": [{"to": [{"podSelector": {}}]}]}, set(), {"store"}),
        ({"policyTypes": ["Ingress"]}, set(), EVERYBODY),
        ({"policyTypes": ["Egress"]}, EVERYBODY, set()),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, EVERYBODY, set()),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, set(), EVERYBODY),
        ({"policyTypes": ["Ingress", "Egress"]}, set(), set()),
        ({"policyTypes": ["Ingress", "Egress"], "ingress": None, "egress": [{}]}, set(), EVERYBODY),
    ],
)
def test_policy_types_close_a_direction_and_rules_open_it(spec, incoming, outgoing):
    assert (who_reaches_web(manifest(**spec)), whom_web_reaches(manifest(**spec))) == (
        incoming,
        outgoing,
    )


@pytest.mark.parametrize(
    ("selector", "closed"),
    [
        ({}, True),
        ({"matchLabels": {}}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "web", "tier": "back"}}, False),
        ({"matchLabels": {"app": "store"}}, False),
    ],
)
def test_a_policy_is_about_the_pods_of_its_namespace_that_it_selects(selector, closed):
    assert who_reaches_web(manifest(podSelector=selector)) == (set() if closed else EVERYBODY)


def test_a_policy_of_another_namespace_does_not_concern_a_pod():
    elsewhere = manifest(podSelector={})
    elsewhere["metadata"]["namespace"] = "far"
    assert who_reaches_web(elsewhere) == EVERYBODY


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({"podSelector": {}}, {"store"}),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, set()),
        ({"namespaceSelector": {}}, {"store", "far"}),
        ({"namespaceSelector": {"matchLabels": {"team": "red"}}}, {"far"}),
        (
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}},
            {"store"},
        ),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}, {"far"}),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": "red"}},
                "podSelector": {"matchLabels": {"app": "store"}},
            },
            set(),
        ),
        ({"ipBlock": {"cidr": "203.0.113.0/24"}}, {"outside"}),
        ({"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}}, set()),
        ({"ipBlock": {"cidr": "10.0.2.0/24"}}, {"far"}),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"outside"}),
    ],
)
def test_peers_are_the_same_in_both_directions(peer, allowed):
    both = ["Ingress", "Egress"]
    spec = {"policyTypes": both, "ingress": [{"from": [peer]}], "egress": [{"to": [peer]}]}
    assert who_reaches_web(manifest(**spec)) == allowed
    assert whom_web_reaches(manifest(**spec)) == allowed


def test_peers_of_a_rule_rules_of_a_policy_and_policies_add_up():
    store = {"podSelector": {"matchLabels": {"app": "store"}}}
    far = {"namespaceSelector": {"matchLabels": {"team": "red"}}}
    assert who_reaches_web(manifest(ingress=[{"from": [store, far]}])) == {"store", "far"}
    assert who_reaches_web(manifest(ingress=[{"from": [store]}, {"from": [far]}])) == {
        "store",
        "far",
    }
    assert who_reaches_web(
        manifest(), manifest(ingress=[{"from": [store]}]), manifest(ingress=[{"from": [far]}])
    ) == {"store", "far"}


def test_peers_and_ports_are_of_one_rule():
    read = policies(
        manifest(
            ingress=[
                {"from": [{"podSelector": {}}], "ports": [{"port": 80}]},
                {"from": [{"namespaceSelector": {}}], "ports": [{"port": 81}]},
            ]
        )
    )
    assert [may_reach(read, STORE, WEB, port) for port in (80, 81)] == [True, True]
    assert [may_reach(read, FAR, WEB, port) for port in (80, 81)] == [False, True]


def test_egress_of_the_source_and_ingress_of_the_target_both_count():
    out = manifest(podSelector={"matchLabels": {"app": "store"}}, policyTypes=["Egress"])
    out_open = {**out, "spec": {**out["spec"], "egress": [{"ports": [{"port": 80}]}]}}
    into, into_open = manifest(), manifest(ingress=[{"ports": [{"port": 80}]}])
    for pair, passes in (
        ((out, into), False),
        ((out_open, into), False),
        ((out, into_open), False),
        ((out_open, into_open), True),
    ):
        assert may_reach(policies(*pair), STORE, WEB, 80) is passes


def test_a_named_port_is_that_of_the_pod_that_is_reached():
    into = policies(manifest(ingress=[{"ports": [{"port": "http"}]}]))
    out = policies(
        manifest(
            podSelector={"matchLabels": {"app": "store"}},
            egress=[{"ports": [{"port": "http"}]}],
        )
    )
    assert [may_reach(into, STORE, WEB, port) for port in (8080, 80)] == [True, False]
    assert [may_reach(out, STORE, WEB, port) for port in (8080, 80)] == [True, False]
    assert not may_reach(out, STORE, FAR, 8080)
    assert not may_reach(out, STORE, OUTSIDE, 8080)


def test_empty_lists_of_peers_and_of_ports_are_all():
    assert who_reaches_web(manifest(ingress=[{"from": [], "ports": []}])) == EVERYBODY
