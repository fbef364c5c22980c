"""Every check of one recipe on this machine, in the order in which they are shown.

Heavy libraries are imported by the checks that need them, so that the first answers come at once.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from configs.run import RunConfig
from configs.teacher import OpenAiTeacherConfig
from orchestration import checkups_network as network
from orchestration import checkups_places as places
from orchestration.checkups import Check, Finding, guarded
from orchestration.checkups_inputs import check_data, check_models, check_tokenizers
from orchestration.checkups_software import (
    LOCK,
    check_packages,
    check_python,
    installed_version,
)
from orchestration.role_counts import initial_counts, reserved


def examine(config: RunConfig, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what each check finds; ``settle_authentication`` has set ``environ`` before."""
    address = config.cluster.joined(environ)
    checks = {**_software(environ), **_network(config, address, environ), **_inputs(config)}
    checks |= _places(config, environ)
    if address is None:
        checks |= _machine(config)
    for name, check in checks.items():
        yield guarded(name, check)
    if address is not None:
        yield Finding("machine", "ok", "not looked at: the cluster places the roles")


def _software(environ: Mapping[str, str]) -> dict[str, Check]:
    return {
        "python": lambda: check_python(sys.version_info[:2]),
        "packages": lambda: check_packages(LOCK, installed_version),
    }


def _network(
    config: RunConfig, address: str | None, environ: Mapping[str, str]
) -> dict[str, Check]:
    seconds, teacher = network.ANSWER_SECONDS, config.teacher
    monitoring, ray_folder = config.monitoring, places.ray_folder(environ)
    checks: dict[str, Check] = {
        "metrics port": lambda: network.check_metrics_port(monitoring.host, monitoring.port),
        "Ray address": lambda: network.check_ray_address(address, ray_folder, seconds=seconds),
        "Ray authentication": lambda: network.check_authentication(
            config.cluster, address, environ, Path.home()
        ),
    }
    if config.uses_teacher and isinstance(teacher, OpenAiTeacherConfig):
        checks["teacher server"] = lambda: network.check_teacher_server(
            teacher, config.student, seconds=seconds
        )
    return checks


def _inputs(config: RunConfig) -> dict[str, Check]:
    def models() -> Finding:
        from huggingface_hub.constants import HF_HUB_OFFLINE

        from orchestration.inputs import sources_of  # brings transformers

        return check_models(sources_of(config), offline=HF_HUB_OFFLINE)

    return {
        "data": lambda: check_data(config.data),
        "models": models,
        "tokenizers": lambda: check_tokenizers(config),
    }


def _places(config: RunConfig, environ: Mapping[str, str]) -> dict[str, Check]:
    def disk() -> Finding:
        from orchestration.checkups_needs import disk_needs

        return places.check_disk(places.places_of(config, Path.cwd()), disk_needs(config))

    def earlier_run() -> Finding:
        folder = places.places_of(config, Path.cwd())["run folder"]
        return places.check_earlier_run(folder, resumes=config.resume != "never")

    return {
        "earlier run": earlier_run,
        "folders": lambda: places.check_folders(places.places_of(config, Path.cwd())),
        "disk": disk,
        "temporary files": lambda: places.check_temporary_files(places.ray_folder(environ)),
    }


def _machine(config: RunConfig) -> dict[str, Check]:
    """Return the checks of a machine that a Ray of our own has to itself."""
    from orchestration import checkups_machine as machine
    from orchestration.checkups_needs import memory_need

    measured = cache(machine.this_machine)
    # Where all roles share one process, nothing is reserved.
    counts = {} if config.cluster.local else initial_counts(config)
    reservations = reserved(config.cluster, counts)
    local_cpus = config.cluster.local_cpus or os.cpu_count()
    checks: dict[str, Check] = {
        "cores": lambda: machine.check_cores(
            sum(asked["CPU"] for asked in reservations.values()), local_cpus, measured()
        ),
        "memory": lambda: machine.check_memory(memory_need(config), measured()),
        "GPUs": lambda: machine.check_gpus(
            {role: asked["GPU"] for role, asked in reservations.items()},
            machine.present_gpus,
            cpu_engine=installed_version("vllm") is None,
        ),
        "shared memory": lambda: machine.check_shared_memory(
            machine.free_shared_memory(), measured().available
        ),
    }
    if config.cluster.local:
        del checks["shared memory"]
    return checks
