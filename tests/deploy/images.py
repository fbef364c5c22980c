"""Images, and the nodes with GPUs that they are for."""

import re
from collections.abc import Iterator

from tests.deploy.lenient import mapping, mappings, text
from tests.deploy.manifests import Manifest
from tests.deploy.pods import Pod, pods_of

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def image_complaints(job: Manifest) -> list[str]:
    """Return what is wrong with images, and with where they run."""
    pods = pods_of(job)
    found = [f"{pod.where}: {complaint}" for pod in pods for complaint in (*_pod(pod), *_gpus(pod))]
    return [*found, *_images(pods)]


def _pod(pod: Pod) -> Iterator[str]:
    if not pod.container:
        yield "has no container"
    for container in pod.containers:
        policy = container.get("imagePullPolicy")
        if policy is not None and policy not in PULL_POLICIES:
            yield f"no imagePullPolicy is {policy}"
        for key in ("command", "args"):
            if key in container:
                yield f"{key} takes the place of what KubeRay starts"


def _gpus(pod: Pod) -> Iterator[str]:
    asked = mapping(pod.container, "resources", "requests").get("nvidia.com/gpu", pod.gpus)
    if str(asked) != str(pod.gpus):
        yield f"GPUs are {asked} in requests and {pod.gpus} in limits"
    if pod.gpus and TOLERATION not in mappings(pod.spec, "tolerations"):
        yield "asks for GPUs, and does not tolerate the taint nvidia.com/gpu of their nodes"


def _images(pods: list[Pod]) -> Iterator[str]:
    images = sorted({text(each, "image") for pod in pods for each in pod.containers})
    if len(images) > 1:
        yield f"containers of one job have different images: {', '.join(images)}"
    gpus = any(pod.gpus for pod in pods)
    for image in images:
        kinds = set(re.findall(r"[a-z]+", image.rpartition("/")[2].partition(":")[2]))
        if gpus and "cpu" in kinds:
            yield f"GPUs are asked for, and the image is {image}"
        if not gpus and "gpu" in kinds:
            yield f"the image is {image}, and no GPU is asked for"
