"""Whether one pod may reach another under NetworkPolicies, by Kubernetes' semantics.

Traffic passes where the source's egress and the target's ingress both let it. A pod that no policy
of a direction selects is open in it; of those that select it, one must allow. What a pod says to
itself, and what its node says to it, no policy stops: neither is asked here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.deploy.policy_model import (
    Direction,
    Labels,
    NamedPorts,
    Policy,
    PolicyPeer,
    PolicyRule,
    Protocol,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as policies see it. Producer: ``neighbours``, or a test."""

    name: str
    """What complaints call it."""
    namespace: str
    labels: Labels = field(default_factory=dict)
    namespace_labels: Labels = field(default_factory=dict)
    """Those that it was given; the API server adds its name."""
    ports: NamedPorts = field(default_factory=dict)
    address: str = ""
    """Empty: in no ipBlock."""

    @property
    def labels_of_namespace(self) -> Labels:
        """All of them."""
        return {**self.namespace_labels, "kubernetes.io/metadata.name": self.namespace}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What is no pod: a machine outside, or a service's address before it is a pod's."""

    name: str
    address: str


Peer = Pod | Address


def may_reach(
    policies: Sequence[Policy], source: Peer, target: Peer, port: int, protocol: Protocol = "TCP"
) -> bool:
    """Whether a connection from ``source`` to a port of ``target`` is let through."""
    named = target.ports if isinstance(target, Pod) else {}

    def allowed(direction: Direction, own: Peer, other: Peer) -> bool:
        concerned = concerning(policies, direction, own)
        return not concerned or any(
            _means(rule, other, policy) and _admits(rule, port, protocol, named)
            for policy in concerned
            for rule in policy.rules(direction)
        )

    return allowed("Egress", source, target) and allowed("Ingress", target, source)


def concerning(policies: Sequence[Policy], direction: Direction, own: Peer) -> list[Policy]:
    """The policies that close a pod in a direction; none: it is open."""
    return [
        policy
        for policy in policies
        if isinstance(own, Pod)
        and policy.metadata.namespace == own.namespace
        and policy.spec.pod_selector.selects(own.labels)
        and direction in policy.directions
    ]


def _admits(rule: PolicyRule, port: int, protocol: Protocol, named: NamedPorts) -> bool:
    return not rule.ports or any(each.admits(port, protocol, named) for each in rule.ports)


def _means(rule: PolicyRule, other: Peer, policy: Policy) -> bool:
    return not rule.peers or any(_is(each, other, policy) for each in rule.peers)


def _is(peer: PolicyPeer, other: Peer, policy: Policy) -> bool:
    """Whether a rule means ``other``; without a selector of namespaces, its policy's is meant."""
    if peer.ip_block is not None:
        return peer.ip_block.holds(other.address)
    if isinstance(other, Address):
        return False
    if peer.namespace_selector is None:
        near = other.namespace == policy.metadata.namespace
    else:
        near = peer.namespace_selector.selects(other.labels_of_namespace)
    return near and (peer.pod_selector is None or peer.pod_selector.selects(other.labels))
