"""Whom a run's NetworkPolicies must let through, and whom they must not."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, get_args

from tests.deploy.manifests import Manifest
from tests.deploy.neighbours import DNS, PROMETHEUS, operators, pods_of_run, strangers
from tests.deploy.network import Peer, Pod, concerning, may_reach
from tests.deploy.policy_model import Direction, Policy, Protocol, read_policies

Port = tuple[int, Protocol]
DASHBOARD: Port = (8265, "TCP")
NAMES: tuple[Port, ...] = ((53, "UDP"), (53, "TCP"))
RAY_PORTS = (6379, 8265, 10001, 10002, 19999, 44321)
"""GCS, dashboard, clients, the first and last of workers' usual ones, one that Ray draws."""
NO_METRICS = ("gcs", "dashboard", "client")
"""Ports that pods name for Ray; what else they name serves metrics."""
OTHER_PORTS = (1, 22, 53, 54, 80, 443, 6443, 8079, 8081, 9107, 9150, 9153, 65535)
"""Well-known ones, and neighbours of those that are allowed."""
_FOUND: dict[str, list[str]] = {}
"""What was found already, by policies and pods."""
SHOWN = 4
"""Ports that a complaint lists; of more it says how many."""


class Rule(NamedTuple):
    """What must be: ``source`` reaches ``target`` on all of ``ports``, or on none."""

    source: Peer
    target: Peer
    ports: Sequence[Port]
    must: bool


def network_complaints(manifests: list[Manifest]) -> list[str]:
    """Return what is wrong with an overlay's NetworkPolicies."""
    policies, findings = read_policies(manifests)
    pods = pods_of_run(manifests)
    asked = f"{policies} {pods}"
    if asked not in _FOUND:  # most planted errors lie elsewhere, and the table is long
        _FOUND[asked] = [
            *_elsewhere(policies, pods[0].namespace),
            *_undenied(policies, pods),
            *(said for rule in _table(pods) if (said := _broken(policies, rule))),
        ]
    return [*findings, *_FOUND[asked]]


def _elsewhere(policies: list[Policy], namespace: str) -> Iterator[str]:
    for policy in policies:
        if policy.metadata.namespace != namespace:
            where = policy.metadata.namespace
            yield f"NetworkPolicy {policy.metadata.name} is in {where}, the run in {namespace}"


def _undenied(policies: list[Policy], pods: list[Pod]) -> Iterator[str]:
    """Pods that are open where the policies that allow something are taken away or renamed."""
    denying = [each for each in policies if not (each.spec.ingress or each.spec.egress)]
    for pod in pods:
        for direction in get_args(Direction):
            if not concerning(denying, direction, pod):
                yield f"no NetworkPolicy denies {pod.name} all {direction} that is not allowed"


def _broken(policies: list[Policy], rule: Rule) -> str:
    source, target, ports, must = rule
    wrong = [port for port in ports if may_reach(policies, source, target, *port) != must]
    if not wrong:
        return ""
    if must:
        return f"{source.name} cannot reach {target.name} on {_listed(wrong)}, and must"
    return f"{source.name} can reach {target.name} on {_listed(wrong)}, and must not"


def _listed(ports: list[Port]) -> str:
    shown = ", ".join(f"{port}/{protocol}" for port, protocol in ports[:SHOWN])
    more = len(ports) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _table(pods: list[Pod]) -> Iterator[Rule]:
    yield from _within(pods)
    yield from _of_names(pods)
    yield from _of_operators(pods)
    yield from _of_prometheus(pods)
    yield from _of_strangers(pods)


def _within(pods: list[Pod]) -> Iterator[Rule]:
    """Ray's pods talk on any port; a worker also with others of its group."""
    ports: list[Port] = [(port, "TCP") for port in RAY_PORTS]
    for source in pods:
        for target in pods:
            if source is not target or source.labels.get("ray.io/node-type") == "worker":
                yield Rule(source, target, ports, must=True)


def _of_names(pods: list[Pod]) -> Iterator[Rule]:
    for pod in pods:
        yield Rule(pod, DNS, NAMES, must=True)
        yield Rule(pod, DNS, _probes(pods, but=NAMES), must=False)
        yield Rule(DNS, pod, _probes(pods), must=False)


def _of_operators(pods: list[Pod]) -> Iterator[Rule]:
    for operator in operators(pods[0].namespace):
        for pod in pods:
            asked = [DASHBOARD] if pod.name == "head" else []
            yield Rule(operator, pod, asked, must=True)
            yield Rule(operator, pod, _probes(pods, but=asked), must=False)
            yield Rule(pod, operator, _probes(pods), must=False)


def _of_prometheus(pods: list[Pod]) -> Iterator[Rule]:
    everywhere = {port for pod in pods for port in _metrics_ports(pod)}
    for pod in pods:
        yield Rule(PROMETHEUS, pod, _metrics_ports(pod), must=True)
        yield Rule(PROMETHEUS, pod, _probes(pods, but=everywhere), must=False)
        yield Rule(pod, PROMETHEUS, _probes(pods), must=False)


def _of_strangers(pods: list[Pod]) -> Iterator[Rule]:
    for stranger in strangers(pods):
        for pod in pods:
            yield Rule(stranger, pod, _probes(pods), must=False)
            yield Rule(pod, stranger, _probes(pods), must=False)


def _metrics_ports(pod: Pod) -> list[Port]:
    return [port for name, port in pod.ports.items() if name not in NO_METRICS]


def _probes(pods: list[Pod], but: Iterable[Port] = ()) -> list[Port]:
    """Ports on which something would be let through by mistake, by every protocol."""
    named = {number for pod in pods for number, _ in pod.ports.values()}
    numbers = sorted({*RAY_PORTS, *OTHER_PORTS, *named})
    every: list[Port] = [(each, kind) for each in numbers for kind in get_args(Protocol)]
    return [port for port in every if port not in set(but)]
