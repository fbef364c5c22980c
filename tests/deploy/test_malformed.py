"""Whatever a manifest lacks or has wrongly is a complaint, and never an exception of our rules."""

from functools import partial

import pytest

from tests.deploy.agreement_with_code import entrypoint_complaints
from tests.deploy.environments import environment_complaints
from tests.deploy.exposure import exposure_complaints
from tests.deploy.holes import stumbles
from tests.deploy.images import image_complaints
from tests.deploy.manifests import Manifest, of_kind, one
from tests.deploy.mounts import mount_complaints
from tests.deploy.planted import sound
from tests.deploy.ray_start import ray_start_complaints
from tests.deploy.references import reference_complaints
from tests.deploy.scraping import scraping_complaints
from tests.deploy.submission import submission_complaints

KINDS = ("ConfigMap", "RayJob", "PodMonitor", "PrometheusRule", "PersistentVolumeClaim")
OF_THE_RUN = {"configMap", "containers", "data", "entrypoint", "metadata", "replicas", "resources"}
OF_THE_RUN |= {"rayStartParams", "spec", "volumeMounts", "volumes", "workerGroupSpecs"}
"""Keys without which the recipe is not found, or the run has no room."""


def _rules(manifests: list[Manifest]) -> list[str]:
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
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_rule_raises_where_a_value_is_another_or_missing(kind):
    manifests = sound()
    for manifest in of_kind(manifests, kind):
        content = {key: value for key, value in manifest.items() if key != "kind"}
        changed = [{"kind": kind, **content} if each is manifest else each for each in manifests]
        assert stumbles(content, partial(_rules, changed)) == []
    assert _rules(manifests) == []


def test_no_run_is_read_from_what_raises(tmp_path):
    manifests = sound()
    for kind in ("ConfigMap", "RayJob"):
        for manifest in of_kind(manifests, kind):
            check = partial(entrypoint_complaints, manifests, tmp_path)
            assert stumbles(manifest, check, OF_THE_RUN) == []
    assert entrypoint_complaints(manifests, tmp_path) == []
