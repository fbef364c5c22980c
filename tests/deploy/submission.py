"""What a job is submitted with beside its entrypoint.

Each function returns what is wrong, a sentence each.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.environments import STOP_WAIT, seconds, told
from tests.deploy.lenient import mapping, number, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import head_of
from tests.deploy.ray_start import offer

LOADED = ("pip", "conda", "uv", "working_dir", "py_modules", "container", "image_uri")
"""Fields of a runtime environment that Ray loads from somewhere."""
DEFAULT_GRACE = 30
"""Seconds, where a pod names none."""


def submission_complaints(job: Manifest) -> list[str]:
    """Return them."""
    return [*_driver(job), *_runtime_environment(job)]


def _driver(job: Manifest) -> Iterator[str]:
    """The driver runs on the head, which alone has the recipe and the driver's port."""
    spec = mapping(job, "spec")
    try:
        there = offer(head_of(job))
    except ValueError:
        there = {}
    for key, name in (("entrypointNumCpus", "CPU"), ("entrypointNumGpus", "GPU")):
        asked = spec.get(key, 0)
        if not isinstance(asked, int | float) or asked > there.get(name, 0):
            yield f"{key} is {asked}, and the head offers {there.get(name, 0):g}"
    if spec.get("entrypointResources"):
        yield "entrypointResources may put the driver on another pod than the head"


def _runtime_environment(job: Manifest) -> Iterator[str]:
    try:
        described = yaml.safe_load(text(job, "spec", "runtimeEnvYAML"))
    except yaml.YAMLError as error:
        yield f"runtimeEnvYAML is no YAML: {' '.join(str(error).split())}"
        return
    for key in LOADED:
        if key in mapping(described):
            yield f"runtimeEnvYAML.{key} is loaded at run time, and pods have no network for it"
    given = {str(key): str(value) for key, value in mapping(described, "env_vars").items()}
    yield from (f"runtimeEnvYAML: {complaint}" for complaint in told(given))
    yield from _stop_wait(given, head_of(job).spec)


def _stop_wait(given: dict[str, str], head: dict[str, Any]) -> Iterator[str]:
    if STOP_WAIT not in given:
        return
    asked = seconds(given[STOP_WAIT])
    grace = number(head, "terminationGracePeriodSeconds") or DEFAULT_GRACE
    if asked is None:
        yield f"runtimeEnvYAML: {STOP_WAIT} is no number of seconds: {given[STOP_WAIT]!r}"
    elif asked >= grace:
        yield f"runtimeEnvYAML: {STOP_WAIT} is {asked:g}, and the head is killed after {grace}"
