"""Whether manifests say what the code says: the entrypoint, its recipe, ports, resources."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from configs.errors import ConfigError
from configs.load import load, recipe_names
from configs.monitoring import MonitoringConfig
from configs.run import RunConfig
from orchestration.role_counts import role_counts
from orchestration.role_metrics import PORT_STEPS
from orchestration.room import bundle, no_room
from tests.deploy.choices import choice_complaints
from tests.deploy.command_lines import command_of, parsed
from tests.deploy.lenient import mapping, mappings, text
from tests.deploy.manifests import Manifest, one
from tests.deploy.pods import Pod, head_of, ray_pods, workers_of
from tests.deploy.ray_start import offer
from tests.deploy.references import named


def entrypoint_complaints(manifests: list[Manifest], folder: Path) -> list[str]:
    """Return what is wrong with the run that is submitted, and with its room."""
    job = one(manifests, "RayJob")
    try:
        options, config = _submitted(manifests, folder)
    except ValueError as error:
        return [f"the entrypoint is refused: {error}"]
    idle = ["the entrypoint starts nothing: --dry-run"] if options.dry_run else []
    return [
        *idle,
        *choice_complaints(config),
        *_ports(job, config),
        *_places(job, config),
        *_resources(job, config),
    ]


def configured(manifests: list[Manifest], folder: Path) -> RunConfig:
    """The configuration that the entrypoint makes, read as the real command reads it."""
    return _submitted(manifests, folder)[1]


def _submitted(manifests: list[Manifest], folder: Path) -> tuple[Namespace, RunConfig]:
    """Options and configuration. Raises ValueError where the command would refuse them."""
    line = text(one(manifests, "RayJob"), "spec", "entrypoint")
    try:
        module, arguments = command_of(line)
    except ValueError as error:
        raise ConfigError(f"{line!r} is no command ({error})") from None
    if module != "orchestration.run":
        raise ConfigError(f"{module} is not python -m orchestration.run")
    options, recipe, overrides = parsed(module, arguments)
    return options, load(_laid_out(manifests, recipe, folder), overrides)


def _laid_out(manifests: list[Manifest], recipe: str | None, folder: Path) -> str | None:
    """A recipe where ``load`` finds it: one of ours, or a file that the head has mounted."""
    if recipe is None or recipe in recipe_names():
        return recipe
    place = PurePosixPath(recipe)
    files = _files_at(manifests, str(place.parent))
    if place.name not in files:
        raise ConfigError(f"no ConfigMap that the head mounts at {place.parent} has {place.name}")
    laid = Path(tempfile.mkdtemp(dir=folder))
    for name, content in files.items():
        (laid / Path(name).name).write_text(content, encoding="utf-8")
    return str(laid / place.name)


def _files_at(manifests: list[Manifest], path: str) -> dict[str, str]:
    """Names and texts of the files that the head finds in a folder."""
    head = head_of(one(manifests, "RayJob"))
    source = mapping(head.volumes.get(text(head.mounts.get(path), "name")), "configMap")
    data = mapping(named(manifests, "ConfigMap").get(text(source, "name")), "data")
    chosen = {text(each, "path"): text(each, "key") for each in mappings(source, "items")}
    keys = chosen or {key: key for key in data}
    return {name: text(data, key) for name, key in keys.items() if key in data}


def served_ports(config: MonitoringConfig, ranks: int) -> dict[str, int]:
    """Port by the name that manifests give it: the driver's and the roles'."""
    first = config.role_port
    ports = {role: first + PORT_STEPS[role] for role in PORT_STEPS}
    more = {f"learner-{rank}": ports["learner"] + rank for rank in range(1, ranks)}
    return {"driver": config.port, **ports, **more}


def _ports(job: Manifest, config: RunConfig) -> Iterator[str]:
    served = served_ports(config.monitoring, config.learner.ranks)
    pods = ray_pods(job)
    for name, port in served.items():
        naming = [pod for pod in pods if name in pod.ports]
        for pod in naming:
            if pod.ports[name] != port:
                said = f"the pods of {pod.where} say {pod.ports[name]}"
                yield f"the exporter of {name} is on port {port}, {said}"
        if not naming:
            yield f"the exporter of {name} is on port {port}, and no pod names it"
    if "driver" not in head_of(job).ports:
        yield "the driver runs on the head, which does not name its port"


def _places(job: Manifest, config: RunConfig) -> Iterator[str]:
    """Whether every pod that a role may come to names the role's port."""
    for pod in workers_of(job):
        for role in PORT_STEPS:
            wanted = bundle(getattr(config.cluster, role))
            if role not in pod.ports and _holds(pod, wanted):
                yield f"a {role} may come to the pods of {pod.where}, which do not name its port"


def _holds(pod: Pod, wanted: dict[str, float]) -> bool:
    try:
        there = offer(pod)
    except ValueError:
        return False
    return all(there.get(name, 0) >= amount for name, amount in wanted.items())


def _resources(job: Manifest, config: RunConfig) -> Iterator[str]:
    """Whether the groups' pods have places for all roles, as the run asks of Ray's nodes."""
    try:
        each = [(f"a pod of {pod.where}", offer(pod), pod.count) for pod in workers_of(job)]
    except ValueError:
        return  # what cannot be read is said of ray start
    pods = [(name, there) for name, there, count in each for _ in range(count)]
    if why := no_room(config.cluster, role_counts(config), pods):
        yield f"the groups cannot hold {why}"
