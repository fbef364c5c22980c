"""What `ray start` is told in each pod, and what the pod then is to Ray.

Each function returns what is wrong, a sentence each.
"""

import json
import math
import shlex
from collections.abc import Iterator

from tests.deploy.lenient import mapping, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import Pod, head_of, ray_pods, workers_of
from tests.deploy.quantities import quantity

HEAD_PORTS = {
    "port": ("gcs", 6379),
    "dashboard-port": ("dashboard", 8265),
    "ray-client-server-port": ("client", 10001),
}
METRICS_PORT = {"metrics-export-port": ("ray-metrics", 8080)}
"""A parameter, the port's name in manifests, and what is taken where nothing is said."""


def ray_start_complaints(job: Manifest) -> list[str]:
    """Return them."""
    found = [
        f"{pod.where}: {complaint}"
        for pod in ray_pods(job)
        for complaint in (*_ports(pod), *_unreadable(pod))
    ]
    return [*found, *_head(head_of(job)), *_workers(job)]


def offer(pod: Pod) -> dict[str, float]:
    """What a pod is to Ray: what parameters say, else limits, and for CPUs at last requests.

    So KubeRay writes the command line. Raises ValueError for what Ray could not read.
    """
    return {
        "CPU": _amount(pod, "num-cpus", _cpus(pod)),
        "GPU": _amount(pod, "num-gpus", pod.gpus),
    } | (_custom(pod))


def _cpus(pod: Pod) -> float:
    resources = mapping(pod.container, "resources")
    for key in ("limits", "requests"):
        if amount := quantity(mapping(resources, key).get("cpu")):
            return math.ceil(amount)
    return 0


def _amount(pod: Pod, parameter: str, otherwise: float) -> float:
    given = pod.parameters.get(parameter, str(otherwise))
    try:
        return float(given)
    except (TypeError, ValueError):
        raise ValueError(f"{parameter} is no number: {given!r}") from None


def _custom(pod: Pod) -> dict[str, float]:
    """As a shell gives it to Ray: JSON, quoted once more for the command line."""
    if "resources" not in pod.parameters:
        return {}
    given = text(pod.parameters, "resources")
    wrong = ValueError(f"resources is no JSON in quotes for Ray's shell: {given}")
    try:
        (line,) = shlex.split(given)
        read = json.loads(line)
    except ValueError:
        raise wrong from None
    if not isinstance(read, dict) or not all(type(n) in (int, float) for n in read.values()):
        raise wrong
    return {name: float(amount) for name, amount in read.items()}


def _unreadable(pod: Pod) -> Iterator[str]:
    try:
        offer(pod)
    except ValueError as error:
        yield str(error)


def _ports(pod: Pod) -> Iterator[str]:
    asked = {**METRICS_PORT, **(HEAD_PORTS if pod.role == "head" else {})}
    for parameter, (name, otherwise) in asked.items():
        port = pod.parameters.get(parameter, str(otherwise))
        if port != str(pod.ports.get(name)):
            yield f"Ray's {parameter} is {port}, and the port {name} is {pod.ports.get(name)}"


def _head(head: Pod) -> Iterator[str]:
    if head.parameters.get("num-cpus") != "0":
        yield "head: num-cpus is not 0: roles would be placed beside the driver"
    if head.parameters.get("num-gpus", "0") != "0" or head.gpus:
        yield "head: offers GPUs: roles would be placed beside the driver"


def _workers(job: Manifest) -> Iterator[str]:
    for pod in workers_of(job):
        for parameter, there in (("num-cpus", _cpus(pod)), ("num-gpus", pod.gpus)):
            given = pod.parameters.get(parameter)
            if given is not None and quantity(given) != there:
                yield f"{pod.where}: {parameter} is {given}, and the container has {there:g}"
