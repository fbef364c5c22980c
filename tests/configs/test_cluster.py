"""Which Ray a run joins, and what may be asked of it."""

import re

import pytest

from configs.cluster import ClusterConfig
from configs.errors import ConfigError
from configs.load import load


def test_the_recipe_s_address_goes_before_the_environment_s():
    environ = {"RAY_ADDRESS": "a:1"}
    assert ClusterConfig(address="b:2").joined(environ) == "b:2"
    assert ClusterConfig().joined(environ) == "a:1"


def test_a_run_of_its_own_joins_none():
    environ = {"RAY_ADDRESS": "a:1"}
    assert ClusterConfig(address="local").joined(environ) is None
    assert ClusterConfig(local=True).joined(environ) is None
    assert ClusterConfig().joined({}) is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sampler.custom.disk=-1", "disk: an amount from 0 on is expected, got -1"),
        ("sampler.custom.CPU=1", "'CPU' is no name of a custom resource: set cpus beside custom"),
        ("teacher.custom.GPU=1", "'GPU' is no name of a custom resource: set gpus beside custom"),
        ("learner.custom.memory=1", "'memory' is no name of a custom resource: leave it out"),
        ("learner.custom.object_store_memory=1", "'object_store_memory' is no name"),
        ("sampler.custom.TPU=1.5", "TPU: above 1 only whole devices are reserved, got 1.5"),
        ("sampler.custom.disk=0.00001", "disk: Ray counts no less than 0.0001, got 1e-05"),
        ("sampler.gpus=1.5", "above 1 only whole devices are reserved, got 1.5"),
        ("sampler.gpus=0.00001", "Ray counts no less than 0.0001, got 1e-05"),
    ],
)
def test_an_amount_that_ray_refuses_is_refused_before_anything_starts(override, said):
    key = ".".join(override.partition("=")[0].split(".")[:2])
    with pytest.raises(ConfigError, match=re.escape(f"cluster.{key}: {said}")) as refused:
        load("quickstart", [f"cluster.{override}"])
    assert f"(in override 'cluster.{override}')" in str(refused.value)


def test_shares_and_whole_devices_are_taken():
    overrides = (
        "sampler.gpus=0.5",
        "teacher.gpus=2",
        "teacher.custom.disk=1.5",
        "learner.cpus=1.5",
    )
    config = load("quickstart", [f"cluster.{each}" for each in overrides]).cluster
    assert (config.sampler.gpus, config.teacher.gpus, config.learner.cpus) == (0.5, 2, 1.5)
    assert config.teacher.custom == {"disk": 1.5}
