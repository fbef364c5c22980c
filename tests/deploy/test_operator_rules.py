"""What KubeRay's operator and the API server refuse of a RayJob is caught, and what we do."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.cluster_rules import pinned_ray
from tests.deploy.complaints import complaints
from tests.deploy.holes import stumbles
from tests.deploy.manifests import OVERLAYS, Manifest, built, one
from tests.deploy.operator_rules import job_complaints, pod_complaints
from tests.deploy.pods import templates_of
from tests.deploy.quantities import quantity

GPU = "nvidia.com/gpu"
QUEUE = {"kueue.x-k8s.io/queue-name": "dpkd"}


def job(manifests: list[Manifest]) -> Manifest:
    return one(manifests, "RayJob")["spec"]


def cluster(manifests: list[Manifest]) -> Manifest:
    return job(manifests)["rayClusterSpec"]


def group(manifests: list[Manifest], index: int = 0) -> Manifest:
    return cluster(manifests)["workerGroupSpecs"][index]


def container(manifests: list[Manifest], name: str = "head") -> Manifest:
    return dict(templates_of(one(manifests, "RayJob")))[name]["spec"]["containers"][0]


def job_has(**more: Any) -> "Spoil":
    return lambda m: job(m).update(more)


def cluster_has(**more: Any) -> "Spoil":
    return lambda m: cluster(m).update(more)


def group_has(**more: Any) -> "Spoil":
    return lambda m: group(m).update(more)


def named(name: str) -> "Spoil":
    return lambda m: one(m, "RayJob")["metadata"].update(name=name)


def labelled(**more: Any) -> "Spoil":
    return lambda m: one(m, "RayJob")["metadata"].update(labels=QUEUE) or job(m).update(more)


def adds(words: str) -> "Spoil":
    return lambda m: job(m).update(entrypoint=job(m)["entrypoint"] + words)


def requests(name: str = "head", **more: Any) -> "Spoil":
    return lambda m: container(m, name)["resources"]["requests"].update(more)


def limits(name: str = "head", **more: Any) -> "Spoil":
    return lambda m: container(m, name)["resources"]["limits"].update(more)


def environment(name: str) -> "Spoil":
    return lambda m: container(m)["env"].append({"name": name, "value": "1"})


def _sidecar(manifests: list[Manifest]) -> None:
    job(manifests).update(submissionMode="SidecarMode")
    del job(manifests)["submitterPodTemplate"], job(manifests)["submitterConfig"]
    cluster(manifests)["headGroupSpec"]["template"]["spec"].update(restartPolicy="OnFailure")


def _wait_in_words(manifests: list[Manifest]) -> None:
    (wait,) = [e for e in container(manifests)["env"] if e["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    wait["value"] = "a while"


def of_the_rayjob(changed: Manifest) -> list[str]:
    return [*job_complaints(changed), *pod_complaints(changed)]


Spoil = Callable[[list[Manifest]], Any]
PLANTED: dict[str, tuple[Spoil, str]] = {
    "a name with a capital": (named("Dpkd"), "the name Dpkd is no DNS-1035 label"),
    "a name with a digit first": (named("1dpkd"), "the name 1dpkd is no DNS-1035 label"),
    "a name with a dot": (named("dpkd.one"), "the name dpkd.one is no DNS-1035 label"),
    "a long name": (named("d" * 48), "is longer than 47 characters"),
    "a time to live below nothing": (
        job_has(ttlSecondsAfterFinished=-1),
        "ttlSecondsAfterFinished -1 is less than 0",
    ),
    "a deadline at once": (
        job_has(activeDeadlineSeconds=0),
        "activeDeadlineSeconds 0 is less than 1",
    ),
    "a start that must be over at once": (
        job_has(preRunningDeadlineSeconds=0),
        "preRunningDeadlineSeconds 0 is less than 1",
    ),
    "retries below none": (job_has(backoffLimit=-1), "backoffLimit -1 is less than 0"),
    "retries that are no number": (
        job_has(backoffLimit="three"),
        "backoffLimit three is no whole number",
    ),
    "retries of what somebody types": (
        job_has(submissionMode="InteractiveMode"),
        "backoffLimit does not go with InteractiveMode",
    ),
    "a wait without an end": (
        labelled(suspend=True, shutdownAfterJobFinishes=False),
        "suspend needs shutdownAfterJobFinishes",
    ),
    "a wait for a cluster that is there": (
        job_has(suspend=True, clusterSelector={"ray.io/cluster": "dpkd"}),
        "suspend does not go with clusterSelector",
    ),
    "a cluster that is not named": (
        job_has(clusterSelector={"cluster": "dpkd"}),
        "clusterSelector names no ray.io/cluster",
    ),
    "a wait in no queue": (
        job_has(suspend=True),
        "nobody starts the job without the label kueue.x-k8s.io/queue-name",
    ),
    "a queue that nobody waits in": (
        labelled(),
        "the label kueue.x-k8s.io/queue-name needs suspend: true",
    ),
    "a head that starts again beside its submitter": (
        _sidecar,
        "SidecarMode needs the head's restartPolicy Never",
    ),
    "a submitter's template beside a sidecar": (
        job_has(submissionMode="SidecarMode"),
        "submissionMode SidecarMode starts no submitter, but one is described",
    ),
    "a sidecar of another cluster": (
        job_has(submissionMode="SidecarMode", clusterSelector={"ray.io/cluster": "dpkd"}),
        "SidecarMode does not go with clusterSelector",
    ),
    "two ways to delete": (
        job_has(
            deletionStrategy={
                "deletionRules": [
                    {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED"}},
                ]
            }
        ),
        "deletionStrategy does not go with shutdownAfterJobFinishes",
    ),
    "an environment that is no YAML": (job_has(runtimeEnvYAML="{"), "runtimeEnvYAML is no mapping"),
    "an environment that is a list": (job_has(runtimeEnvYAML="[a]"), "runtimeEnvYAML is no map"),
    "a command's output in the entrypoint": (adds(" name=$(date)"), "the entrypoint's $("),
    "backquotes in the entrypoint": (adds(" name=`date`"), "the entrypoint's `"),
    "a second command": (adds("; date"), "the entrypoint's ;"),
    "a second command after success": (adds(" && date"), "the entrypoint's &&"),
    "a pipe": (adds(" | tee log"), "the entrypoint's |"),
    "no version of Ray": (lambda m: cluster(m).pop("rayVersion"), "needs rayVersion 2.52"),
    "a version that is none": (cluster_has(rayVersion="latest"), "rayVersion latest is no version"),
    "another version than the image's": (
        cluster_has(rayVersion="2.61.0"),
        f"rayVersion is 2.61.0, and the image has Ray {pinned_ray()}",
    ),
    "two groups of one name": (group_has(groupName="sampler"), "there are 2 groups sampler"),
    "more replicas than the most": (group_has(replicas=2), "group learner: replicas are not betw"),
    "fewer replicas than the least": (
        lambda m: group(m, 1).update(minReplicas=5, maxReplicas=9),
        "group sampler: replicas are not between",
    ),
    "fewer replicas than none": (
        group_has(minReplicas=-1),
        "group learner: replicas are not between",
    ),
    "replicas without a bound": (
        lambda m: group(m).pop("maxReplicas"),
        "group learner: minReplicas, replicas and maxReplicas are not all stated",
    ),
    "a group that waits by itself": (group_has(suspend=True), "group learner: its own suspend"),
    "resources stated twice": (
        group_has(resources={"CPU": "16"}),
        "group learner: resources are stated twice",
    ),
    "labels among parameters": (
        lambda m: group(m)["rayStartParams"].update(labels="a=b"),
        "group learner: rayStartParams.labels is not taken",
    ),
    "Redis by a variable": (
        environment("RAY_REDIS_ADDRESS"),
        "RAY_REDIS_ADDRESS needs gcsFaultToleranceOptions",
    ),
    "an autoscaler by a variable": (
        environment("RAY_enable_autoscaler_v2"),
        "RAY_enable_autoscaler_v2 needs enableInTreeAutoscaling",
    ),
    "more memory than the limit": (
        requests(memory="17Gi"),
        "head: requests 17Gi of memory, more than its limit 16Gi",
    ),
    "more memory than the limit, in another unit": (
        limits(memory="17179M"),
        "head: requests 16Gi of memory, more than its limit 17179M",
    ),
    "more cores than the limit": (
        limits(cpu="3900m"),
        "head: requests 4 of cpu, more than its limit 3900m",
    ),
    "fewer GPUs than the limit": (
        requests("sampler", **{GPU: "0"}),
        "sampler: requests 0 of nvidia.com/gpu and is limited to 1: they must be equal",
    ),
    "a GPU without a limit": (
        lambda m: container(m, "sampler")["resources"]["limits"].pop(GPU),
        "sampler: requests 1 of nvidia.com/gpu and is limited to None: they must be equal",
    ),
    "half a GPU": (
        limits(**{GPU: "500m"}),
        "head: 500m of nvidia.com/gpu is no whole number",
    ),
    "a quantity that is none": (
        limits(memory="16 GB"),
        "head: its limit of memory is no quantity: 16 GB",
    ),
    "no resources": (lambda m: container(m).pop("resources"), "head: states no resources"),
    "no limit of memory": (
        lambda m: container(m, "submitter")["resources"].pop("limits"),
        "submitter: has no memory limit",
    ),
    "no request of cores": (
        lambda m: container(m)["resources"]["requests"].pop("cpu"),
        "head: states no cpu or no memory",
    ),
    "memory for a volume without a bound": (
        lambda m: cluster(m)["headGroupSpec"]["template"]["spec"]["volumes"].append(
            {"name": "more", "emptyDir": {"medium": "Memory"}}
        ),
        "head: a volume in memory has no sizeLimit",
    ),
    "an image of a registry without a version": (
        lambda m: container(m).update(image="registry:5000/dpkd"),
        "head: image registry:5000/dpkd names no version",
    ),
    "a wait that is no number": (_wait_in_words, "head: RAY_JOB_STOP_WAIT_TIME_S is no number"),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    spoil, said = PLANTED[error]
    manifests = built("gpu")
    assert not any(said in complaint for complaint in of_the_rayjob(one(manifests, "RayJob")))
    spoil(manifests)
    found = complaints(manifests, tmp_path)
    assert any(said in complaint for complaint in found), found


ALLOWED: dict[str, Spoil] = {
    "GPUs that are limited only": lambda m: container(m, "sampler")["resources"]["requests"].pop(
        GPU
    ),
    "a wait in a queue": labelled(suspend=True),
    "no retries": job_has(backoffLimit=0),
    "a cluster that stays": lambda m: job(m).update(
        shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0
    ),
    "memory in decimal units": limits(memory="18e9"),
    "an image by its digest": lambda m: container(m).update(image="registry:5000/dpkd@sha256:1"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_operator_takes_is_let_through(case):
    manifests = built("gpu")
    ALLOWED[case](manifests)
    assert of_the_rayjob(one(manifests, "RayJob")) == []


def test_quantities_are_read_as_kubernetes_reads_them():
    assert [quantity(each) for each in ("1Ki", "1k", "500m", 2, "1.5Gi", "1e3", "2E")] == [
        *(1024, 1000, 0.5, 2, 1610612736, 1000, 2e18)
    ]
    wrong = ("", "x", "1 Gi", "1GB", "-1", "1KI", None)
    assert [quantity(each) for each in wrong] == [None] * len(wrong)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_hole_in_a_manifest_makes_it_stumble(overlay):
    changed = one(built(overlay), "RayJob")
    assert stumbles(changed, lambda: of_the_rayjob(changed)) == []
