"""Runs on several hosts, each with a network of its own."""

import pytest

from tests.e2e.ray_hosts import RayHosts
from tests.e2e.tiny import TinyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_ranks_on_two_hosts_learn_together(tmp_path):
    seat = {"learner": 1}
    settings = (
        *(
            "learner.ranks=2",
            "learner.zero_stage=2",
            "learner.steps=3",
            "evaluation.generate=false",
        ),
        'cluster.learner={"cpus":0,"custom":{"learner":1}}',
        *("cluster.start_timeout_seconds=60", "cluster.call_timeout_seconds=60"),
    )
    with RayHosts(tmp_path, seat, seat) as cluster:
        run = TinyRun(
            tmp_path, *settings, f"cluster.address={cluster.address}", recipe="sft", on=cluster.head
        )
        assert run.wait() == 0, run.tail()
    where = run.json("processes.json")
    assert {where[f"learner-{rank}"]["address"] for rank in (0, 1)} == {"10.77.0.2", "10.77.0.3"}
