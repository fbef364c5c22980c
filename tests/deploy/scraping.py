"""Whether Prometheus finds a run's exporters, and alerts and dashboard the labels that they read.

Each function returns what is wrong, a sentence each.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.lenient import mapping, mappings, name_of, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import ray_pods
from tests.deploy.references import named, namespace_of

METRICS_PATH = "/metrics"
OURS = "app.kubernetes.io/name"
RAY_ITSELF = {"gcs", "dashboard", "client"}
OPERATED = ("PodMonitor", "PrometheusRule")
API = "monitoring.coreos.com/v1"
LABELS = {
    "run": "__meta_kubernetes_namespace",
    "process": "__meta_kubernetes_pod_container_port_name",
}
"""A label that alerts and the dashboard read, and what it is made of."""
_RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"
_JOB = re.compile(r'\bjob\s*=\s*"([^"]*)"')
_DURATION = re.compile(r"(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")


def scraping_complaints(manifests: list[Manifest], job: Manifest) -> list[str]:
    """Return them."""
    monitors = named(manifests, "PodMonitor").values()
    return [
        *_operated(manifests),
        *(complaint for each in monitors for complaint in _monitor(each, manifests, job)),
        *(complaint for rule in alerts_of(manifests) for complaint in _runbook(rule)),
    ]


def alerts_of(manifests: list[Manifest]) -> list[Manifest]:
    """The alerts that are applied."""
    return [
        rule
        for each in named(manifests, "PrometheusRule").values()
        for group in mappings(each, "spec", "groups")
        for rule in mappings(group, "rules")
        if "alert" in rule
    ]


def _operated(manifests: list[Manifest]) -> Iterator[str]:
    there = [each for each in manifests if text(each, "kind") in OPERATED]
    for each in there:
        if text(each, "apiVersion") != API:
            yield f"{each['kind']} {name_of(each)} is of {text(each, 'apiVersion')}, not {API}"
    if missing := set(OPERATED) - {each["kind"] for each in there} if there else set():
        yield f"there is no {missing.pop()} beside the {there[0]['kind']}"


def _monitor(monitor: Manifest, manifests: list[Manifest], job: Manifest) -> Iterator[str]:
    spec, space = mapping(monitor, "spec"), namespace_of(manifests)
    if spec.get("namespaceSelector", {}) not in ({}, {"matchNames": [space]}):
        yield f"PodMonitor looks at other namespaces than {space}"
    yield from _selected(spec, job)
    yield from _jobs(monitor, manifests, job)
    yield from _ports(spec, job)
    for endpoint in mappings(spec, "podMetricsEndpoints"):
        for complaint in (*_endpoint(endpoint), *_relabelings(endpoint)):
            yield f"PodMonitor, port {text(endpoint, 'port')}: {complaint}"


def _selected(spec: Manifest, job: Manifest) -> Iterator[str]:
    selector = mapping(spec, "selector")
    wanted = mapping(selector, "matchLabels")
    if not wanted or set(selector) != {"matchLabels"}:
        yield "PodMonitor does not select by labels alone"
    for pod in ray_pods(job):
        if not wanted.items() <= pod.labels.items():
            yield f"PodMonitor does not select the pods of {pod.where}"


def _jobs(monitor: Manifest, manifests: list[Manifest], job: Manifest) -> Iterator[str]:
    """The label `job` that Prometheus's operator gives the series, and the one alerts ask for."""
    label = text(monitor, "spec", "jobLabel")
    if label != OURS:
        yield f"PodMonitor: jobLabel is {label or 'not set'}, not {OURS}"
    asked = {name for rule in alerts_of(manifests) for name in _JOB.findall(text(rule, "expr"))}
    for pod in ray_pods(job):
        given = text(pod.labels, label) or f"{namespace_of(manifests)}/{name_of(monitor)}"
        for other in sorted(asked - {given}):
            yield f'alerts ask for job="{other}", and series of {pod.where} have job="{given}"'


def _ports(spec: Manifest, job: Manifest) -> Iterator[str]:
    offered = {name for pod in ray_pods(job) for name in pod.ports}
    asked = Counter(text(each, "port") for each in mappings(spec, "podMetricsEndpoints"))
    missing = sorted(offered - RAY_ITSELF - asked.keys())
    yield from (f"PodMonitor asks for a port {name!r} of no pod" for name in asked.keys() - offered)
    yield from (f"nobody scrapes the port {name}" for name in missing)
    yield from (f"PodMonitor asks for the port {name} twice" for name, n in asked.items() if n > 1)


def _endpoint(endpoint: Manifest) -> Iterator[str]:
    if endpoint.get("path", METRICS_PATH) != METRICS_PATH:
        yield f"asks for {endpoint['path']}, exporters answer {METRICS_PATH}"
    if endpoint.get("scheme", "http") != "http":
        yield f"scheme is {endpoint['scheme']}, exporters speak http"
    for key in ("interval", "scrapeTimeout"):
        if key in endpoint and not _DURATION.fullmatch(text(endpoint, key)):
            yield f"{key} is no duration: {endpoint[key]!r}"


def _relabelings(endpoint: Manifest) -> Iterator[str]:
    relabelings = mappings(endpoint, "relabelings")
    for target, source in LABELS.items():
        writing = [each for each in relabelings if each.get("targetLabel") == target]
        made = {"sourceLabels": [source], "targetLabel": target}
        if [{**each, "action": "replace"} for each in writing] != [made | {"action": "replace"}]:
            yield f"series get no label {target} of {source}"
    for each in relabelings:
        if each.get("action", "replace") != "replace" or each.get("targetLabel") == "job":
            yield f"a relabeling may take series or labels away: {each}"


def _runbook(alert: Manifest) -> Iterator[str]:
    path, _, anchor = text(alert, "annotations", "runbook").partition("#")
    headings = re.findall(r"^#+ (.+)$", _RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    if path != "docs/runbook.md" or anchor not in anchors:
        yield f"the alert {alert['alert']} leads to no heading of docs/runbook.md: {path}#{anchor}"
