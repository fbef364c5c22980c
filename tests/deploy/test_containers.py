"""Environments, images and GPUs that do not fit are complained of."""

import pytest

from tests.deploy.manifests import OVERLAYS, Manifest, built, one
from tests.deploy.planted import Planted, assert_caught, container, item, pod, without
from tests.deploy.pods import pods_of


def _set(manifests: list[Manifest], where: str, name: str, value: str) -> None:
    item(container(manifests, where)["env"], "name", name)["value"] = value


def _tell(manifests: list[Manifest], name: str, value: str) -> None:
    container(manifests, "teacher")["env"].append({"name": name, "value": value})


def _all_images(manifests: list[Manifest], image: str) -> None:
    for each in pods_of(one(manifests, "RayJob")):
        each.container["image"] = image


def _no_gpus(manifests: list[Manifest]) -> None:
    for each in pods_of(one(manifests, "RayJob")):
        for amounts in each.container["resources"].values():
            amounts.pop("nvidia.com/gpu", None)


PLANTED: Planted = {
    "no home": (
        lambda m: without(container(m, "learner")["env"], "name", "HOME"),
        "learner: HOME is not set",
    ),
    "a home in the image": (
        lambda m: _set(m, "submitter", "HOME", "/home/dpkd"),
        "submitter: HOME=/home/dpkd is below no mount that may be written to",
    ),
    "a home among keys": (
        lambda m: _set(m, "head", "HOME", "/etc/dpkd-keys/home"),
        "head: HOME=/etc/dpkd-keys/home is below no mount that may be written to",
    ),
    "no time to save": (
        lambda m: without(container(m)["env"], "name", "RAY_JOB_STOP_WAIT_TIME_S"),
        "head: RAY_JOB_STOP_WAIT_TIME_S is no number of seconds: ''",
    ),
    "another time to save": (
        lambda m: _set(m, "learner", "RAY_JOB_STOP_WAIT_TIME_S", "30"),
        "learner: RAY_JOB_STOP_WAIT_TIME_S is not 90, as the head has it",
    ),
    "statistics of use": (
        lambda m: _set(m, "sampler", "RAY_USAGE_STATS_ENABLED", "1"),
        "sampler: RAY_USAGE_STATS_ENABLED is not 0",
    ),
    "no tokens by environment": (
        lambda m: _tell(m, "RAY_AUTH_MODE", "disabled"),
        "teacher: RAY_AUTH_MODE turns Ray's token authentication off",
    ),
    "a key in plain text": (
        lambda m: _tell(m, "OPENAI_API_KEY", "sk-1"),
        "teacher: OPENAI_API_KEY looks like a secret in plain text",
    ),
    "a token in plain text": (
        lambda m: _tell(m, "HF_TOKEN", "hf_1"),
        "teacher: HF_TOKEN looks like a secret in plain text",
    ),
    "a name that is set twice": (
        lambda m: _tell(m, "HOME", "/data"),
        "teacher: HOME is set 2 times",
    ),
    "two images": (
        lambda m: container(m, "sampler").update(image="dpkd:other"),
        "containers of one job have different images: dpkd:gpu, dpkd:other",
    ),
    "an image without CUDA": (
        lambda m: _all_images(m, "registry.example:5000/dpkd:1.2-cpu"),
        "GPUs are asked for, and the image is registry.example:5000/dpkd:1.2-cpu",
    ),
    "an image for GPUs that nobody asks for": (
        _no_gpus,
        "the image is dpkd:gpu, and no GPU is asked for",
    ),
    "a policy that is none": (
        lambda m: container(m).update(imagePullPolicy="Sometimes"),
        "head: no imagePullPolicy is Sometimes",
    ),
    "another command in the container": (
        lambda m: container(m).update(command=["ray", "start"]),
        "head: command takes the place of what KubeRay starts",
    ),
    "other arguments": (
        lambda m: container(m, "learner").update(args=["--block"]),
        "learner: args takes the place of what KubeRay starts",
    ),
    "nodes that refuse it": (
        lambda m: pod(m, "learner")["spec"].pop("tolerations"),
        "learner: asks for GPUs, and does not tolerate the taint",
    ),
    "nodes that drive it out": (
        lambda m: pod(m, "sampler")["spec"]["tolerations"][0].update(effect="NoExecute"),
        "sampler: asks for GPUs, and does not tolerate the taint",
    ),
    "GPUs in requests alone": (
        lambda m: container(m, "learner")["resources"]["limits"].pop("nvidia.com/gpu"),
        "learner: GPUs are 4 in requests and 0 in limits",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    assert_caught(PLANTED[error], tmp_path)


def test_the_overlays_have_different_images():
    demo, gpu = (
        {each.container["image"] for each in pods_of(one(built(overlay), "RayJob"))}
        for overlay in OVERLAYS
    )
    assert (demo, gpu) == ({"dpkd:cpu"}, {"dpkd:gpu"})
