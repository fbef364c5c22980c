"""Whatever a manifest lacks or has wrongly is a complaint, and never an exception of our rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.agreement_with_code import entrypoint_complaints
from tests.deploy.environments import environment_complaints
from tests.deploy.exposure import exposure_complaints
from tests.deploy.images import image_complaints
from tests.deploy.manifests import Manifest, one
from tests.deploy.mounts import mount_complaints
from tests.deploy.planted import sound
from tests.deploy.ray_start import ray_start_complaints
from tests.deploy.references import reference_complaints
from tests.deploy.scraping import scraping_complaints
from tests.deploy.submission import submission_complaints

WRONG = (None, "wrong", ["wrong"], {"wrong": []}, [{"wrong": {}}], 7)
READ = {"ConfigMap", "RayJob", "PodMonitor", "PrometheusRule", "PersistentVolumeClaim", "Namespace"}
OF_THE_RUN = {"configMap", "containers", "data", "entrypoint", "metadata", "ports", "replicas"}
OF_THE_RUN |= {"rayStartParams", "resources", "spec", "volumeMounts", "volumes", "workerGroupSpecs"}
"""Keys without which the recipe is not found, or the run has no room."""


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of values with a key or an index into it."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _rules(manifests: list[Manifest], folder: Path, key: Any) -> list[str]:
    job = one(manifests, "RayJob")
    of_manifests = (reference_complaints, exposure_complaints, scraping_complaints)
    of_jobs = (
        mount_complaints,
        environment_complaints,
        image_complaints,
        ray_start_complaints,
        submission_complaints,
    )
    return [
        *(complaint for rule in of_manifests for complaint in rule(manifests, job)),
        *(complaint for rule in of_jobs for complaint in rule(job)),
        *(entrypoint_complaints(manifests, folder) if key in OF_THE_RUN else ()),
    ]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_no_rule_raises_where_any_one_value_is_another(wrong, tmp_path):
    manifests = sound()
    tried = 0
    for manifest in manifests:
        for holder, key in list(_places(manifest)) if manifest["kind"] in READ else ():
            if holder is manifest and key == "kind":
                continue
            before, holder[key] = holder[key], wrong
            _rules(manifests, tmp_path, key)
            holder[key] = before
            tried += 1
    assert tried > 500
    assert _rules(manifests, tmp_path, "entrypoint") == []


def test_no_rule_raises_where_any_one_key_is_missing(tmp_path):
    manifests = sound()
    for manifest in manifests:
        for holder, key in list(_places(manifest)) if manifest["kind"] in READ else ():
            if isinstance(holder, list) or (holder is manifest and key == "kind"):
                continue
            before = dict(holder)
            del holder[key]
            _rules(manifests, tmp_path, key)
            holder.clear()
            holder.update(before)
    assert _rules(manifests, tmp_path, "entrypoint") == []
