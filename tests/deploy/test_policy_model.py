"""What each part of a NetworkPolicy selects, and what is no policy."""

import pytest

from tests.deploy.policy_model import IpBlock, PolicyPort, Selector, read_policies
from tests.deploy.test_network import manifest

PORTS = {"http": (8080, "TCP"), "quic": (8443, "UDP")}
LABELS = {
    "web": {"app": "web", "tier": "front"},
    "store": {"app": "store", "tier": ""},
    "bare": {},
}


def findings_of(**spec):
    read, (finding, *_) = read_policies([manifest(**spec)])
    assert read == []
    return finding


@pytest.mark.parametrize(
    ("port", "admitted"),
    [
        ({}, {"80/TCP", "8080/TCP", "8081/TCP", "8443/TCP"}),
        ({"protocol": "UDP"}, {"53/UDP", "8443/UDP"}),
        ({"protocol": None, "port": None}, {"80/TCP", "8080/TCP", "8081/TCP", "8443/TCP"}),
        ({"port": 80}, {"80/TCP"}),
        ({"port": 8443, "protocol": "UDP"}, {"8443/UDP"}),
        ({"port": 8443, "protocol": "SCTP"}, set()),
        ({"port": 80, "endPort": 8080}, {"80/TCP", "8080/TCP"}),
        ({"port": 8081, "endPort": 8081}, {"8081/TCP"}),
        ({"port": "http"}, {"8080/TCP"}),
        ({"port": "quic"}, set()),
        ({"port": "quic", "protocol": "UDP"}, {"8443/UDP"}),
        ({"port": "https"}, set()),
    ],
)
def test_ports_by_number_range_name_and_protocol(port, admitted):
    tried = ("80/TCP", "8080/TCP", "8081/TCP", "8443/TCP", "53/UDP", "8443/UDP")
    rule = PolicyPort.model_validate(port)
    found = {
        each
        for each in tried
        if rule.admits(int(each.split("/")[0]), each.split("/")[1], PORTS)  # type: ignore
    }
    assert found == admitted


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        (("app", "In", ["web", "store"]), {"web", "store"}),
        (("app", "NotIn", ["web"]), {"store", "bare"}),
        (("tier", "Exists", None), {"web", "store"}),
        (("tier", "DoesNotExist", None), {"bare"}),
        (("tier", "DoesNotExist", []), {"bare"}),
    ],
)
def test_match_expressions(expression, selected):
    key, operator, values = expression
    requirement = {"key": key, "operator": operator, "values": values}
    selector = Selector.model_validate({"matchExpressions": [requirement]})
    assert {name for name, each in LABELS.items() if selector.selects(each)} == selected


def test_labels_and_expressions_must_all_hold():
    requirements = [
        {"key": "app", "operator": "Exists"},
        {"key": "tier", "operator": "In", "values": ["front"]},
    ]
    given = {"matchLabels": {"app": "web"}, "matchExpressions": requirements}
    selector = Selector.model_validate(given)
    assert selector.selects({"app": "web", "tier": "front"})
    assert not selector.selects({"app": "web", "tier": "back"})
    assert not selector.selects({"app": "store", "tier": "front"})


def test_blocks_of_either_family_hold_their_own():
    block = IpBlock.model_validate({"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]})
    addresses = ("2001:db8::7", "2001:db8:1::7", "203.0.113.7", "")
    assert [block.holds(each) for each in addresses] == [True, False, False, False]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"podSelector": None}, "NetworkPolicy p: spec.podSelector: "),
        ({"ingres": []}, "spec.ingres: Extra inputs"),
        ({"policyTypes": ["ingress"]}, "spec.policyTypes.0: Input should be 'Ingress' or 'Egress'"),
        ({"ingress": {}}, "spec.ingress: Input should be a valid list"),
        ({"ingress": [None]}, "spec.ingress.0: "),
        ({"ingress": [{"to": []}]}, "spec.ingress.0.to: Extra inputs"),
        ({"egress": [{"from": []}]}, "spec.egress.0.from: Extra inputs"),
        ({"ingress": [{"from": [{}]}]}, "a peer is selectors or an ipBlock"),
        (
            {"ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            "a peer is selectors or an ipBlock",
        ),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}]}, "is no network such as"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}, "ipBlock.cidr: "),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": 7}}]}]}, "7 is no network such as"),
        (
            {
                "ingress": [
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}
                ]
            },
            "except 11.0.0.0/9 is no smaller part of 10.0.0.0/8",
        ),
        (
            {
                "ingress": [
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}
                ]
            },
            "is no smaller part of",
        ),
        ({"ingress": [{"ports": [{"port": 0}]}]}, "greater than or equal to 1"),
        ({"ingress": [{"ports": [{"port": 65536}]}]}, "less than or equal to 65535"),
        ({"ingress": [{"ports": [{"port": True}]}]}, "port"),
        ({"ingress": [{"ports": [{"port": "80"}]}]}, "port"),
        ({"ingress": [{"ports": [{"port": 80, "protocol": "tcp"}]}]}, "'TCP', 'UDP' or 'SCTP'"),
        ({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}, "does not end a range from 80"),
        ({"ingress": [{"ports": [{"port": "http", "endPort": 80}]}]}, "a range from http"),
        ({"ingress": [{"ports": [{"endPort": 80}]}]}, "a range from None"),
        ({"podSelector": {"matchLabels": {"app": 1}}}, "matchLabels.app: "),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "In with the values None",
        ),
        (
            {
                "podSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Is", "values": ["b"]}]
                }
            },
            "operator: Input should be",
        ),
        (
            {
                "podSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]
                }
            },
            "Exists with the values ['b']",
        ),
    ],
)
def test_a_malformed_policy_is_a_finding(spec, said):
    assert said in findings_of(**spec)


@pytest.mark.parametrize("broken", [{}, {"metadata": None}, {"metadata": {}, "spec": 1}])
def test_a_policy_that_is_none_is_a_finding_and_the_others_hold(broken):
    read, findings = read_policies([{"kind": "NetworkPolicy", **broken}, manifest()])
    assert findings
    assert all(each.startswith("NetworkPolicy ") for each in findings)
    assert [each.metadata.name for each in read] == ["p"]


def test_other_kinds_are_no_policies():
    assert read_policies([{"kind": "ConfigMap"}, {}]) == ([], [])
