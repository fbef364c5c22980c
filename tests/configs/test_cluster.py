"""Which Ray a run joins."""

from configs.cluster import ClusterConfig


def test_the_recipe_s_address_goes_before_the_environment_s():
    environ = {"RAY_ADDRESS": "a:1"}
    assert ClusterConfig(address="b:2").joined(environ) == "b:2"
    assert ClusterConfig().joined(environ) == "a:1"


def test_a_run_of_its_own_joins_none():
    environ = {"RAY_ADDRESS": "a:1"}
    assert ClusterConfig(address="local").joined(environ) is None
    assert ClusterConfig(local=True).joined(environ) is None
    assert ClusterConfig().joined({}) is None
