"""NetworkPolicies as Kubernetes reads them: each part knows what it selects, and one that the API
server would refuse is a finding.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from tests.deploy.manifests import Manifest

Direction = Literal["Ingress", "Egress"]
Protocol = Literal["TCP", "UDP", "SCTP"]
Labels = Mapping[str, str]
NamedPorts = Mapping[str, tuple[int, Protocol]]
"""A pod's ports by name."""


class Part(BaseModel):
    """A part of a policy, which refuses unknown fields and values of another type."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )


class Requirement(Part):
    """One of ``matchExpressions``."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None

    @model_validator(mode="after")
    def _has_values_where_it_compares(self) -> "Requirement":
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(f"{self.operator} with the values {self.values}")
        return self

    def holds(self, labels: Labels) -> bool:
        """Whether labels meet it; ``NotIn`` is met where the key is missing, too."""
        there, value = self.key in labels, labels.get(self.key)
        return {
            "In": value in (self.values or ()),
            "NotIn": value not in (self.values or ()),
            "Exists": there,
            "DoesNotExist": not there,
        }[self.operator]


class Selector(Part):
    """A label selector; an empty one selects everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None

    def selects(self, labels: Labels) -> bool:
        """Whether labels meet all that it asks for."""
        wanted = (self.match_labels or {}).items()
        return wanted <= labels.items() and all(
            each.holds(labels) for each in self.match_expressions or ()
        )


def _network(value: object) -> IPv4Network | IPv6Network:
    if not isinstance(value, str) or not value.partition("/")[2].isdecimal():
        raise ValueError(f"{value!r} is no network such as 10.0.0.0/8")
    return ip_network(value, strict=False)


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Number = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(max_length=15, pattern="^[a-z0-9-]*[a-z][a-z0-9-]*$")]


class IpBlock(Part):
    """Addresses of a network, without those of some smaller ones."""

    cidr: Network
    excepted: list[Network] | None = Field(None, alias="except")

    @model_validator(mode="after")
    def _excepts_what_it_has(self) -> "IpBlock":
        for each in self.excepted or ():
            if not (each.network_address in self.cidr and each.prefixlen > self.cidr.prefixlen):
                raise ValueError(f"except {each} is no smaller part of {self.cidr}")
        return self

    def holds(self, address: str) -> bool:
        """Whether an address is one of them; a pod without an address is in no block."""
        if not address:
            return False
        where = ip_address(address)
        return where in self.cidr and not any(where in each for each in self.excepted or ())


class PolicyPeer(Part):
    """Who may be at the other end: pods by labels, or addresses."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IpBlock | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "PolicyPeer":
        by_labels = self.pod_selector is not None or self.namespace_selector is not None
        if by_labels == (self.ip_block is not None):
            raise ValueError("a peer is selectors or an ipBlock")
        return self


class PolicyPort(Part):
    """A port by number or name, a range of them, or all of a protocol."""

    protocol: Protocol | None = None
    port: Number | Name | None = None
    end_port: Number | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> "PolicyPort":
        if self.end_port is not None and not (
            isinstance(self.port, int) and self.port <= self.end_port
        ):
            raise ValueError(f"endPort {self.end_port} does not end a range from {self.port}")
        return self

    def admits(self, port: int, protocol: Protocol, named: NamedPorts) -> bool:
        """Whether it is this one; ``named`` are the ports of the pod that is reached."""
        if protocol != (self.protocol or "TCP"):
            return False
        if isinstance(self.port, str):
            return named.get(self.port) == (port, protocol)
        return self.port is None or self.port <= port <= (self.end_port or self.port)


class PolicyRule(Part):
    """What is allowed: any of ``peers`` on any of ``ports``, none stated being all."""

    ports: list[PolicyPort] | None = None
    peers: list[PolicyPeer] | None = None


class IngressRule(PolicyRule):
    """One of ``ingress``."""

    peers: list[PolicyPeer] | None = Field(None, alias="from")


class EgressRule(PolicyRule):
    """One of ``egress``."""

    peers: list[PolicyPeer] | None = Field(None, alias="to")


class PolicySpec(Part):
    """Which pods, in which directions, and what they may."""

    pod_selector: Selector
    policy_types: list[Direction] | None = None
    ingress: list[IngressRule] | None = None
    egress: list[EgressRule] | None = None


class Metadata(Part):
    """What a policy is called, and where it is."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = "default"


class Policy(Part):
    """A NetworkPolicy."""

    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec

    @property
    def directions(self) -> frozenset[Direction]:
        """Those in which a selected pod is closed but for the rules."""
        default: list[Direction] = ["Ingress", "Egress"] if self.spec.egress else ["Ingress"]
        return frozenset(self.spec.policy_types or default)

    def rules(self, direction: Direction) -> list[PolicyRule]:
        """What it allows; rules of a direction that it is not about are of no effect."""
        rules = {"Ingress": self.spec.ingress, "Egress": self.spec.egress}[direction]
        return [*(rules or ())]


def read_policies(manifests: list[Manifest]) -> tuple[list[Policy], list[str]]:
    """The NetworkPolicies that an API server takes, and what is wrong with the others."""
    policies, findings = [], []
    for manifest in manifests:
        if manifest.get("kind") == "NetworkPolicy":
            try:
                policies.append(Policy.model_validate(manifest))
            except ValidationError as error:
                findings += _findings(manifest, error)
    return policies, findings


def _findings(manifest: Manifest, error: ValidationError) -> list[str]:
    metadata: Any = manifest.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return [
        f"NetworkPolicy {name}: {'.'.join(map(str, each['loc']))}: "
        + each["msg"].removeprefix("Value error, ")
        for each in error.errors()
    ]
