"""Every overlay is taken by the API servers, KubeRay, a restricted namespace, and our code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.prometheus import rule
from tests.deploy.agreement_with_code import configured
from tests.deploy.complaints import complaints
from tests.deploy.manifests import (
    DEPLOY,
    OVERLAYS,
    built,
    kustomize,
    of_kind,
    one,
)
from tests.deploy.operator_rules import memory_of
from tests.deploy.planted import Planted, assert_caught, container, group, head, job
from tests.deploy.pods import templates_of
from tests.deploy.schemas import CRDS, schema_complaints


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_complains_of_an_overlay(overlay, tmp_path):
    assert complaints(built(overlay), tmp_path) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_s_kinds_are_as_its_definitions_say(overlay):
    if not CRDS.is_dir():
        pytest.skip("KubeRay's definitions are not here: KUBERAY_CRDS names their folder")
    assert schema_complaints(one(built(overlay), "RayJob")) == []


def test_the_demo_is_the_quickstart_and_the_gpu_example_has_a_group_a_role(tmp_path):
    demo, gpu = (configured(built(overlay), tmp_path) for overlay in OVERLAYS)
    assert (demo.data.train, demo.name, demo.learner.ranks) == ("embedded", "demo", 1)
    assert (gpu.learner.ranks, gpu.student.replicas, gpu.teacher.replicas) == (4, 4, 2)
    groups = {name for name, _ in templates_of(one(built("gpu"), "RayJob"))}
    assert groups == {"submitter", "head", "learner", "sampler", "teacher"}


def test_only_the_overlay_that_needs_prometheus_s_operator_brings_its_kinds():
    kinds = {overlay: {each["kind"] for each in built(overlay)} for overlay in OVERLAYS}
    assert {"PodMonitor", "PrometheusRule"} <= kinds["gpu"]
    assert not {"PodMonitor", "PrometheusRule"} & kinds["cpu-demo"]
    dashboard = one(built("gpu"), "ConfigMap", "dpkd-dashboard")
    assert dashboard["metadata"]["labels"] == {"grafana_dashboard": "1"}


def test_the_alerts_are_the_ones_that_promtool_has_tried():
    assert one(built("gpu"), "PrometheusRule")["spec"] == rule.build()["spec"], "make generated"


def test_a_job_may_wait_in_a_queue_of_kueue(tmp_path):
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy)  # kustomize takes nothing from outside
    overlay = deploy / "overlays" / "waiting"
    overlay.mkdir()
    settings = {"resources": ["../cpu-demo"], "components": ["../../kueue"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    manifests = list(yaml.safe_load_all(kustomize(overlay)))
    job = one(manifests, "RayJob")
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "dpkd"}
    assert job["spec"]["suspend"] is True
    assert complaints(manifests, tmp_path) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_two_runs_from_copies_have_nothing_in_common(overlay, tmp_path):
    """As deploy/README.md has it: a copy of an overlay, another namespace, another recipe."""
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy)
    runs = {}
    for name in ("one", "two"):
        copied = deploy / "overlays" / name
        shutil.copytree(DEPLOY / "overlays" / overlay, copied)
        settings = copied / "kustomization.yaml"
        settings.write_text(settings.read_text().replace("namespace: dpkd", f"namespace: {name}"))
        recipe = copied / "recipe.yaml"
        recipe.write_text(re.sub(r"^name: .*", f"name: {name}", recipe.read_text(), flags=re.M))
        runs[name] = list(yaml.safe_load_all(kustomize(copied)))
    for name, manifests in runs.items():
        assert complaints(manifests, tmp_path) == []
        assert configured(manifests, tmp_path).name == name
        assert one(manifests, "Namespace")["metadata"]["name"] == name
        others = [each for each in manifests if each["kind"] != "Namespace"]
        assert {each["metadata"]["namespace"] for each in others} == {name}


def test_the_demo_asks_for_what_its_document_says(tmp_path):
    """Of the scheduler: what containers request, the submitter's included."""
    asked = [
        template["spec"]["containers"][0]["resources"]["requests"]
        for _, template in templates_of(one(built("cpu-demo"), "RayJob"))
    ]
    cores = sum(_cores(each["cpu"]) for each in asked)
    memory = sum(memory_of(each["memory"]) for each in asked) / 2**30
    assert (cores, memory) == (2.6, 12.5)
    said = " ".join((DEPLOY / "README.md").read_text().split())
    assert f"its pods request {cores:g} cores and {memory:g} GiB" in said


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_the_dockerfile_has_nothing_to_complain_of():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(linter), str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_images_are_pinned_and_end_as_nobody():
    text = (DEPLOY / "Dockerfile").read_text()
    stages = text.split("\nFROM ")[1:]
    assert "@sha256:" in text.split("ARG PYTHON=")[1].splitlines()[0]
    named = {stage.split(" AS ")[1].split()[0]: stage for stage in stages}
    assert set(named) == {"wheel", "runtime", "cpu", "gpu"}
    for target in ("cpu", "gpu"):
        assert "USER 1000:1000" in named[target]


def test_what_the_image_is_built_of_is_let_into_the_build():
    allowed = {
        line[1:] for line in (DEPLOY.parent / ".dockerignore").read_text().split() if line[0] == "!"
    }
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    sources = {each.split("/")[0] for words in copied for each in words if each[0] not in "-/"}
    assert sources == allowed
    assert all((DEPLOY.parent / name).exists() for name in allowed)


PLANTED: Planted = {
    "a field that does not exist": (
        lambda m: container(m).update(volumeMount=[]),
        "volumeMount",
    ),
    "a number for a string": (
        lambda m: job(m)["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update(
            {"num-cpus": 0}
        ),
        "rayStartParams.num-cpus is no string",
    ),
    "an unknown field of a native kind": (
        lambda m: of_kind(m, "NetworkPolicy")[0]["spec"].update(ingres=[]),
        "ingres",
    ),
    "a way to submit that is none": (
        lambda m: job(m).update(submissionMode="JobMode"),
        "submissionMode JobMode",
    ),
    "a time to live without an end": (
        lambda m: job(m).update(shutdownAfterJobFinishes=False),
        "ttlSecondsAfterFinished needs",
    ),
    "a submitter that nobody starts": (
        lambda m: job(m).update(submissionMode="HTTPMode"),
        "starts no submitter",
    ),
    "tokens that Ray is too old for": (
        lambda m: job(m)["rayClusterSpec"].update(rayVersion="2.40.0"),
        "needs rayVersion",
    ),
    "no tokens": (
        lambda m: job(m)["rayClusterSpec"].pop("authOptions"),
        "token authentication is off",
    ),
    "more replicas than there may be": (
        lambda m: group(m).update(replicas=9),
        "replicas are not between",
    ),
    "root": (
        lambda m: head(m)["spec"]["securityContext"].update(runAsNonRoot=False),
        "may run as root",
    ),
    "privileges": (
        lambda m: container(m)["securityContext"].update(allowPrivilegeEscalation=True),
        "may gain privileges",
    ),
    "a writable image": (
        lambda m: container(m)["securityContext"].update(readOnlyRootFilesystem=False),
        "may write to its own image",
    ),
    "a folder of the node": (
        lambda m: head(m)["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "is a folder of the node",
    ),
    "shared memory beyond the limit": (
        lambda m: container(m)["resources"]["limits"].update(memory="1Gi"),
        "may go into /dev/shm",
    ),
    "a volume that nobody mounts": (
        lambda m: container(m)["volumeMounts"].pop(),
        "volumes and mounts differ",
    ),
    "an image without a version": (
        lambda m: container(m).update(image="dpkd"),
        "names no version",
    ),
    "an end before the checkpoint": (
        lambda m: head(m)["spec"].update(terminationGracePeriodSeconds=30),
        "before the driver has had its time",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    if error == "a field that does not exist" and not CRDS.is_dir():
        pytest.skip("KubeRay's definitions are not here: KUBERAY_CRDS names their folder")
    assert_caught(PLANTED[error], tmp_path)
