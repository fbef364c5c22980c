"""Entrypoints, recipes and what Ray is told that do not fit each other are complained of."""

import copy

import pytest

from tests.deploy.complaints import complaints
from tests.deploy.manifests import Manifest, built, one
from tests.deploy.planted import (
    Planted,
    assert_caught,
    container,
    group,
    head,
    in_recipe,
    item,
    job,
    parameters,
    say,
    sound,
)
from tests.deploy.pods import workers_of
from tests.deploy.ray_start import offer


def _entry(manifests: list[Manifest], old: str, new: str) -> None:
    assert old in job(manifests)["entrypoint"]
    job(manifests)["entrypoint"] = job(manifests)["entrypoint"].replace(old, new)


def _tell_ray(manifests: list[Manifest], **told: str) -> None:
    group(manifests)["rayStartParams"].update(
        {name.replace("_", "-"): text for name, text in told.items()}
    )


ONE_OF_EACH = "learner.ranks=1 student.replicas=1 teacher.replicas=1"
ENTRYPOINTS: Planted = {
    "a misspelt override": (
        lambda m: say(m, "monitoring.prot=1"),
        "the nearest known key is 'monitoring.port'",
    ),
    "an option that is none": (
        lambda m: say(m, "--dryrun"),
        "unrecognized arguments: --dryrun",
    ),
    "another command": (
        lambda m: job(m).update(entrypoint="python train.py /etc/dpkd/recipe.yaml"),
        "is not python -m orchestration.run",
    ),
    "no command": (lambda m: job(m).update(entrypoint=""), "'' is no command"),
    "another recipe": (
        lambda m: _entry(m, "recipe.yaml", "other.yaml"),
        "no ConfigMap that the head mounts at /etc/dpkd has other.yaml",
    ),
    "a recipe from elsewhere": (
        lambda m: _entry(m, "/etc/dpkd/", "/etc/other/"),
        "no ConfigMap that the head mounts at /etc/other has recipe.yaml",
    ),
    "a plan for a run": (lambda m: say(m, "--dry-run"), "the entrypoint starts nothing"),
    "a run that does not go on": (
        lambda m: say(m, "resume=never"),
        "resume=never: a retry is a new cluster",
    ),
    "a run that deletes": (lambda m: say(m, "existing=replace"), "existing=replace"),
    "a run without Ray": (
        lambda m: say(m, f"cluster.local=true {ONE_OF_EACH}"),
        "cluster.local=true: the run would stay in the driver's process",
    ),
    "a Ray of its own": (lambda m: say(m, "cluster.address=local"), "cluster.address=local"),
    "a Ray of others": (
        lambda m: in_recipe(m, "cluster:\n", "cluster:\n  address: other:6379\n"),
        "cluster.address=other:6379: the run leaves the cluster",
    ),
    "a Ray for everybody": (lambda m: say(m, "cluster.auth=disabled"), "cluster.auth=disabled"),
    "exporters on loopback": (
        lambda m: _entry(m, "monitoring.host=0.0.0.0", ""),
        "no other pod reaches them",
    ),
    "results that go with the pod": (
        lambda m: _entry(m, "/data/runs", "/tmp/runs"),
        "output=/tmp/runs is not below /data: it goes with the pod",
    ),
    "results beside the claim": (
        lambda m: _entry(m, "/data/runs", "/data/../tmp"),
        "output=/data/../tmp is not below /data",
    ),
    "a cache that goes with the pod": (
        lambda m: _entry(m, "cache=/data/cache", ""),
        "is not below /data: it goes with the pod",
    ),
    "checkpoints that go with the pod": (
        lambda m: say(m, "checkpoint.folder=/tmp/checkpoints"),
        "checkpoint.folder=/tmp/checkpoints is not below /data: it goes with the pod",
    ),
    "data that no pod has": (
        lambda m: say(m, "data.train=train.jsonl"),
        "data.train=train.jsonl is not below /data: no pod has it",
    ),
    "a corpus that no pod has": (
        lambda m: say(m, "data.corpus=/home/me/corpus.txt"),
        "data.corpus=/home/me/corpus.txt is not below /data: no pod has it",
    ),
    "a model of a hub": (
        lambda m: say(m, "student.model=Qwen/Qwen3-0.6B"),
        "student.model=Qwen/Qwen3-0.6B is not below /data, and a hub is out of the pods' reach",
    ),
    "a teacher of a hub": (
        lambda m: say(m, "teacher.model=Qwen/Qwen3-8B"),
        "teacher.model=Qwen/Qwen3-8B is not below /data",
    ),
    "a driver with CPUs": (
        lambda m: job(m).update(entrypointNumCpus=1),
        "entrypointNumCpus is 1, and the head offers 0",
    ),
    "a driver with a GPU": (
        lambda m: job(m).update(entrypointNumGpus=1),
        "entrypointNumGpus is 1, and the head offers 0",
    ),
    "a driver beside a learner": (
        lambda m: job(m).update(entrypointResources='{"learner": 1}'),
        "entrypointResources may put the driver on another pod",
    ),
    "packages at run time": (
        lambda m: job(m).update(runtimeEnvYAML="pip: [rich]"),
        "runtimeEnvYAML.pip is loaded at run time",
    ),
    "a folder at run time": (
        lambda m: job(m).update(runtimeEnvYAML="working_dir: https://example.com/a.zip"),
        "runtimeEnvYAML.working_dir is loaded at run time",
    ),
    "a longer stop than the pod's": (
        lambda m: job(m).update(runtimeEnvYAML="env_vars: {RAY_JOB_STOP_WAIT_TIME_S: '600'}"),
        "RAY_JOB_STOP_WAIT_TIME_S is 600, and the head is killed after 120",
    ),
    "a key in the runtime environment": (
        lambda m: job(m).update(runtimeEnvYAML="env_vars: {WANDB_API_KEY: x}"),
        "runtimeEnvYAML: WANDB_API_KEY looks like a secret",
    ),
}
PODS: Planted = {
    "another port": (
        lambda m: container(m)["ports"][3].update(containerPort=9109),
        "the exporter of driver is on port 9108, the pods of head say 9109",
    ),
    "a port that moved": (
        lambda m: say(m, "monitoring.role_port=9210"),
        "the exporter of teacher is on port 9220, the pods of teacher say 9120",
    ),
    "a port that no pod names": (
        lambda m: container(m, "teacher")["ports"].pop(0),
        "the exporter of teacher is on port 9120, and no pod names it",
    ),
    "a role where its port is not named": (
        lambda m: group(m)["rayStartParams"].update(resources=r'"{\"sampler\": 1}"'),
        "a sampler may come to the pods of learner, which do not name its port",
    ),
    "a driver where its port is not named": (
        lambda m: container(m)["ports"].pop(3),
        "the driver runs on the head, which does not name its port",
    ),
    "more than the groups have": (
        lambda m: in_recipe(m, "custom: {sampler: 1}", "custom: {sampler: 2}"),
        "sampler: 8 asked, 4 there",
    ),
    "more than one pod has": (
        lambda m: in_recipe(m, "teacher: {cpus: 1,", "teacher: {cpus: 12,"),
        "of which a pod of teacher comes nearest (CPU: 12 asked, 8 there)",
    ),
    "fewer CPUs for Ray than for the pod": (
        lambda m: _tell_ray(m, num_cpus="2"),
        "the groups cannot hold 4 learner, each on one node: they have room for 2",
    ),
    "a head with roles": (
        lambda m: parameters(m).pop("num-cpus"),
        "head: num-cpus is not 0",
    ),
    "a head with GPUs": (
        lambda m: parameters(m).update({"num-gpus": "1"}),
        "head: offers GPUs",
    ),
    "other CPUs than the container's": (
        lambda m: _tell_ray(m, num_cpus="32"),
        "learner: num-cpus is 32, and the container has 16",
    ),
    "other GPUs than the container's": (
        lambda m: _tell_ray(m, num_gpus="8"),
        "learner: num-gpus is 8, and the container has 4",
    ),
    "CPUs that are no number": (
        lambda m: _tell_ray(m, num_cpus="all"),
        "learner: num-cpus is no number: 'all'",
    ),
    "resources without quotes": (
        lambda m: _tell_ray(m, resources='{"learner": 4}'),
        "learner: resources is no JSON in quotes for Ray's shell",
    ),
    "resources that are no numbers": (
        lambda m: _tell_ray(m, resources=r'"{\"learner\": \"4\"}"'),
        "learner: resources is no JSON in quotes for Ray's shell",
    ),
    "metrics on another port": (
        lambda m: _tell_ray(m, metrics_export_port="8090"),
        "learner: Ray's metrics-export-port is 8090, and the port ray-metrics is 8080",
    ),
    "a dashboard on another port": (
        lambda m: parameters(m).update({"dashboard-port": "8266"}),
        "head: Ray's dashboard-port is 8266, and the port dashboard is 8265",
    ),
    "a port of Ray's that is not named so": (
        lambda m: item(container(m)["ports"], "name", "gcs").update(containerPort=6380),
        "head: Ray's port is 6379, and the port gcs is 6380",
    ),
}
PLANTED = ENTRYPOINTS | PODS


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    assert_caught(PLANTED[error], tmp_path)


def test_gpus_may_be_in_limits_alone(tmp_path):
    manifests = sound()
    container(manifests, "learner")["resources"]["requests"].pop("nvidia.com/gpu")
    assert complaints(manifests, tmp_path) == []


def test_ray_is_offered_what_parameters_say_else_limits_else_requests():
    manifests = sound()
    told = copy.deepcopy(container(manifests, "learner")["resources"])

    def offered() -> dict[str, float]:
        return offer(workers_of(one(manifests, "RayJob"))[0])

    assert told["requests"]["cpu"] == "16"
    assert offered() == {"CPU": 16, "GPU": 4, "learner": 4}
    container(manifests, "learner")["resources"]["limits"]["cpu"] = "17500m"
    assert offered() == {"CPU": 18, "GPU": 4, "learner": 4}
    _tell_ray(manifests, num_cpus="3", num_gpus="2")
    assert offered() == {"CPU": 3, "GPU": 2, "learner": 4}


def test_made_models_and_embedded_data_need_nothing_on_the_claim(tmp_path):
    manifests = built("cpu-demo")
    _entry(manifests, "/etc/dpkd/recipe.yaml", "quickstart")
    assert complaints(manifests, tmp_path) == []
    _entry(manifests, "quickstart", "")
    assert complaints(manifests, tmp_path) == []


def test_the_head_s_grace_is_what_the_stop_wait_is_held_against(tmp_path):
    manifests = sound()
    job(manifests)["runtimeEnvYAML"] = "env_vars: {RAY_JOB_STOP_WAIT_TIME_S: '119'}"
    assert complaints(manifests, tmp_path) == []
    head(manifests)["spec"]["terminationGracePeriodSeconds"] = 119
    assert complaints(manifests, tmp_path) != []
