"""Whether manifests say what the code says: command lines, recipes, ports, labels, resources."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from configs.errors import DpkdError
from configs.load import load
from configs.monitoring import MonitoringConfig
from configs.run import RunConfig
from orchestration.role_counts import role_counts
from orchestration.role_metrics import PORT_STEPS
from orchestration.room import no_room
from tests.deploy.command_lines import command_of, parsed
from tests.deploy.manifests import Manifest, of_kind, one, pod_templates, ports_of

METRICS_PATH = "/metrics"
RAY_METRICS_PORT = 8080
ROLES = ("sampler", "teacher", "learner")


def code_complaints(manifests: list[Manifest], folder: Path) -> list[str]:
    """Return where an overlay and the code differ; ``folder`` is there to write to."""
    job = one(manifests, "RayJob")
    try:
        config = configured(manifests, folder)
    except DpkdError as error:
        return [f"the entrypoint is refused: {error}"]
    return [
        *_references(manifests, job),
        *_ports(job, config),
        *_scraping(manifests, job),
        *_network(manifests, job),
        *_resources(job, config),
    ]


def configured(manifests: list[Manifest], folder: Path) -> RunConfig:
    """The configuration that the entrypoint makes, read as the real command reads it."""
    module, words = command_of(one(manifests, "RayJob")["spec"]["entrypoint"])
    if module != "orchestration.run":
        raise DpkdError(f"{module} is not python -m orchestration.run")
    _, recipe, overrides = parsed(module, words)
    path = folder / Path(recipe or "").name
    for config_map in of_kind(manifests, "ConfigMap"):
        if path.name in config_map["data"]:
            path.write_text(config_map["data"][path.name])
    config = load(str(path), overrides)
    for key, place in (("output", config.output), ("cache", config.cache)):
        if not place.is_relative_to("/data"):
            raise DpkdError(f"{key}={place} goes with the pod")
    return config


def _references(manifests: list[Manifest], job: Manifest) -> Iterator[str]:
    """Names that pods refer to, and paths that the entrypoint reads."""
    recipe = Path(shlex.split(job["spec"]["entrypoint"])[3])
    head = dict(pod_templates(job))["head"]["spec"]
    mounts = {each["mountPath"]: each["name"] for each in head["containers"][0]["volumeMounts"]}
    if str(recipe.parent) not in mounts:
        yield f"nothing is mounted at {recipe.parent}"
    for name, template in pod_templates(job):
        for volume in template["spec"].get("volumes", []):
            config_map = volume.get("configMap", {}).get("name")
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if config_map and not of_kind(manifests, "ConfigMap", config_map):
                yield f"{name}: there is no ConfigMap {config_map}"
            if claim and not of_kind(manifests, "PersistentVolumeClaim", claim):
                yield f"{name}: there is no PersistentVolumeClaim {claim}"
        account = template["spec"].get("serviceAccountName")
        if not of_kind(manifests, "ServiceAccount", account):
            yield f"{name}: there is no ServiceAccount {account}"


def served_ports(config: MonitoringConfig, ranks: int) -> dict[str, int]:
    """Port by the name that manifests give it: the driver's and the roles'."""
    first = config.role_port
    ports = {role: first + PORT_STEPS[role] for role in ROLES}
    more = {f"learner-{rank}": ports["learner"] + rank for rank in range(1, ranks)}
    return {"driver": config.port, **ports, **more}


def _ports(job: Manifest, config: RunConfig) -> Iterator[str]:
    served = served_ports(config.monitoring, config.learner.ranks)
    if config.monitoring.host != "0.0.0.0":
        yield f"exporters listen on {config.monitoring.host}: no other pod reaches them"
    named: dict[str, int] = {}
    for where, template in pod_templates(job):
        ports = ports_of(template)
        named |= ports
        if where != "submitter" and ports.get("ray-metrics") != RAY_METRICS_PORT:
            yield f"{where}: Ray's own metrics are on port {RAY_METRICS_PORT}"
    for name, port in served.items():
        if named.get(name) != port:
            yield f"the exporter of {name} is on port {port}, the pods say {named.get(name)}"


def _scraping(manifests: list[Manifest], job: Manifest) -> Iterator[str]:
    templates = dict(pod_templates(job))
    pods = {name: ports_of(each) for name, each in templates.items() if name != "submitter"}
    offered = {port for ports in pods.values() for port in ports}
    for monitor in of_kind(manifests, "PodMonitor"):
        endpoints = monitor["spec"]["podMetricsEndpoints"]
        asked = {endpoint["port"] for endpoint in endpoints}
        yield from (f"PodMonitor asks for a port {name} of no pod" for name in asked - offered)
        exporters = offered - {"gcs", "dashboard", "client"}
        yield from (f"nobody scrapes the port {name}" for name in exporters - asked)
        for endpoint in endpoints:
            if endpoint["path"] != METRICS_PATH:
                yield f"PodMonitor asks for {endpoint['path']}, exporters answer {METRICS_PATH}"
        yield from _unselected(monitor["spec"]["selector"], job, "PodMonitor")


def _network(manifests: list[Manifest], job: Manifest) -> Iterator[str]:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(manifests, "NetworkPolicy")
    }
    if not any(_denies(policy) for policy in policies.values()):
        yield "no NetworkPolicy denies what is not allowed"
    for name, policy in policies.items():
        selector = policy["podSelector"]
        if "ray.io/node-type" not in selector.get("matchLabels", {}):
            yield from _unselected(selector, job, name)
    let_in = [port for policy in policies.values() for port in _let_in(policy)]
    head = ports_of(dict(pod_templates(job))["head"])
    wanted = {port for _, each in pod_templates(job) for port in ports_of(each).values()}
    for port in sorted(wanted - {head["gcs"], head["client"]}):
        if not any(first <= port <= last for first, last in let_in):
            yield f"no NetworkPolicy lets port {port} in"


def _denies(policy: Manifest) -> bool:
    return set(policy["policyTypes"]) == {"Ingress", "Egress"} and not (
        policy.get("ingress") or policy.get("egress")
    )


def _let_in(policy: Manifest) -> Iterator[tuple[int, int]]:
    for rule in policy.get("ingress", []):
        for port in rule.get("ports", []):
            yield port["port"], port.get("endPort", port["port"])


def _unselected(selector: dict[str, Any], job: Manifest, who: str) -> Iterator[str]:
    wanted = selector["matchLabels"].items()
    for name, template in pod_templates(job):
        if not wanted <= template["metadata"]["labels"].items():
            yield f"{who} does not select the pods of {name}"


def _resources(job: Manifest, config: RunConfig) -> Iterator[str]:
    """Whether the groups' pods have places for all roles, as the run asks of Ray's nodes."""
    pods = [pod for group in _groups(job) for pod in [_offer(group)] * group["replicas"]]
    if why := no_room(config.cluster, role_counts(config), pods):
        yield f"the groups cannot hold {why}"


def _groups(job: Manifest) -> list[Manifest]:
    return job["spec"]["rayClusterSpec"]["workerGroupSpecs"]


def _offer(group: Manifest) -> tuple[str, dict[str, float]]:
    """What one pod of a group is to Ray."""
    requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    custom = group["rayStartParams"].get("resources", "'{}'")
    offer = {"CPU": float(requests["cpu"]), "GPU": float(requests.get("nvidia.com/gpu", 0))}
    # As a shell gets it: quoted once for Ray's command line.
    return f"a pod of {group['groupName']}", offer | json.loads(yaml.safe_load(custom))
