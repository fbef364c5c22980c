"""Pods that lose what they write, or lack what they read, are complained of."""

from typing import Any

import pytest

from tests.deploy.manifests import Manifest
from tests.deploy.planted import Planted, assert_caught, container, item, pod, without


def _mount(manifests: list[Manifest], where: str, path: str) -> Manifest:
    return item(container(manifests, where)["volumeMounts"], "mountPath", path)


def _volume(manifests: list[Manifest], where: str, name: str) -> Manifest:
    return item(pod(manifests, where)["spec"]["volumes"], "name", name)


def _instead(manifests: list[Manifest], where: str, name: str, source: Manifest) -> None:
    volume = _volume(manifests, where, name)
    volume.clear()
    volume.update(source, name=name)


def _mount_more(manifests: list[Manifest], where: str, **mount: Any) -> None:
    container(manifests, where)["volumeMounts"].append(mount)


PLANTED: Planted = {
    "results in the pod": (
        lambda m: _instead(m, "learner", "data", {"emptyDir": {}}),
        "learner: no claim is mounted at /data",
    ),
    "results elsewhere": (
        lambda m: _mount(m, "head", "/data").update(mountPath="/results"),
        "head: no claim is mounted at /data",
    ),
    "results that cannot be written": (
        lambda m: _mount(m, "sampler", "/data").update(readOnly=True),
        "sampler: /data is mounted to be read only",
    ),
    "a claim that cannot be written": (
        lambda m: _volume(m, "head", "data")["persistentVolumeClaim"].update(readOnly=True),
        "head: /data is mounted to be read only",
    ),
    "a part of the claim": (
        lambda m: _mount(m, "teacher", "/data").update(subPath="teacher"),
        "teacher: /data is a part of the claim",
    ),
    "a mount that hides results": (
        lambda m: _mount_more(m, "head", name="tmp", mountPath="/data/runs"),
        "head: the mount at /data/runs hides what the claim has there",
    ),
    "two claims": (
        lambda m: _volume(m, "head", "data")["persistentVolumeClaim"].update(claimName="other"),
        "/data is not the same claim in every pod: dpkd-data, other",
    ),
    "a temporary folder without a limit": (
        lambda m: _volume(m, "head", "tmp")["emptyDir"].pop("sizeLimit"),
        "head: /tmp has no sizeLimit",
    ),
    "no temporary folder": (
        lambda m: without(container(m, "teacher")["volumeMounts"], "mountPath", "/tmp"),
        "teacher: /tmp is no emptyDir to write to",
    ),
    "shared memory on the disk": (
        lambda m: _volume(m, "learner", "shm")["emptyDir"].pop("medium"),
        "learner: /dev/shm is no emptyDir in memory",
    ),
    "no recipe": (
        lambda m: without(container(m)["volumeMounts"], "mountPath", "/etc/dpkd"),
        "head: no recipe is mounted at /etc/dpkd",
    ),
    "a recipe that may change": (
        lambda m: _mount(m, "head", "/etc/dpkd").pop("readOnly"),
        "head: the recipe at /etc/dpkd may be written to",
    ),
    "other keys": (
        lambda m: _volume(m, "teacher", "keys")["secret"].update(secretName="keys"),
        "teacher: the Secret dpkd-keys is not mounted at /etc/dpkd-keys",
    ),
    "keys that must be there": (
        lambda m: _volume(m, "teacher", "keys")["secret"].pop("optional"),
        "teacher: does not start without the Secret dpkd-keys",
    ),
    "keys that may change": (
        lambda m: _mount(m, "head", "/etc/dpkd-keys").update(readOnly=False),
        "head: the keys at /etc/dpkd-keys may be written to",
    ),
    "one name for two volumes": (
        lambda m: pod(m, "submitter")["spec"]["volumes"].append({"name": "tmp", "emptyDir": {}}),
        "submitter: two volumes are called tmp",
    ),
    "one path for two mounts": (
        lambda m: _mount_more(m, "head", name="shm", mountPath="/tmp/"),
        "head: two volumes are mounted at /tmp",
    ),
    "a mount of nothing": (
        lambda m: _mount_more(m, "head", name="logs", mountPath="/logs"),
        "head: there is no volume 'logs' to mount",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    assert_caught(PLANTED[error], tmp_path)
