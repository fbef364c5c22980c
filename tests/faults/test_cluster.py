"""Machines of a cluster that are lost under a run: a node, Ray's head, a learner's host."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.ledger import read_events
from tests.e2e.ray_hosts import LEARNER, SAMPLER, SEATED, TEACHER, RayHosts
from tests.e2e.ray_nodes import RayNode
from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def test_ray_s_head_is_lost_and_a_new_cluster_goes_on(tmp_path, report):
    settings = ("learner.steps=14", "resume=auto")
    with RayNode(tmp_path / "first.log") as head:
        run = FaultyRun(tmp_path, *settings, f"cluster.address={head.address}", name="beheaded")
        code = run.wait(run.at_step(6, head.kill))
    assert code != 0, run.tail()
    with RayNode(tmp_path / "second.log") as head:
        on = FaultyRun(tmp_path, *settings, f"cluster.address={head.address}", name="beheaded")
        assert on.wait() == 0, on.tail()
    assert "going on from" in on.log.read_text()
    assert [step for step, _ in on.losses()] == list(range(1, 15))
    on.verify()
    report(on.outcome("8 Ray's head lost, a new cluster", "its processes killed"))


@pytest.mark.skipif("DPKD_SOAK" not in os.environ, reason="minutes long: make test-faults runs it")
def test_a_lost_node_s_sampler_moves_and_is_done_without_when_there_is_nowhere(tmp_path, report):
    """Two samplers, one a node; the second node is lost, replaced, and lost again for good.

    A first try may still be sent to the node that nobody knows is lost.
    """
    settings = (
        *("learner.steps=5000", "student.replicas=2", "replay.max_policy_lag=2"),
        *('cluster.sampler={"cpus":0,"custom":{"seat":1}}', "supervision.max_restarts=3"),
        "cluster.start_timeout_seconds=40",
    )
    with RayNode(tmp_path / "head.log", seat=1) as head:
        nodes = [RayNode(tmp_path / "node-0.log", joins=head, cpus=0, seat=1)]
        try:
            run = FaultyRun(tmp_path, *settings, f"cluster.address={head.address}", name="nodes")

            story = lose_a_node_twice(run, head, nodes)
            assert run.wait(lambda: next(story, None)) == 143, run.tail()
        finally:
            for node in nodes:
                node.__exit__()
        (name,) = {event["role"] for event in restarts(run)}
        assert name.startswith("sampler-"), "another part was on the lost node"
        steps = run.json("status.json")["step"] + 2
        fewer = ("student.replicas=1", f"learner.steps={steps}", "resume=auto")
        address = f"cluster.address={head.address}"
        on = FaultyRun(tmp_path, *settings, address, *fewer, name="nodes")
        assert on.wait() == 0, on.tail()
    on.verify()
    report(on.outcome("9 node lost: sampler moves", "its processes killed", restarted=name))
    report(on.outcome("9 node lost for good", "its processes killed"))


@pytest.mark.skipif("DPKD_SOAK" not in os.environ, reason="minutes long: make test-faults runs it")
def test_a_learner_that_is_cut_off_starts_again_from_its_checkpoint(tmp_path, report):
    with RayHosts(tmp_path, LEARNER, TEACHER, SAMPLER) as cluster:
        address = f"cluster.address={cluster.address}"
        run = FaultyRun(tmp_path, "learner.steps=20", *SEATED, address, name="cut", on=cluster.head)
        story = cut_off_the_learner(run, cluster)
        assert run.wait(lambda: next(story, None)) == 0, run.tail()
        run.verify()
    assert run.json("summary.json")["restarts"]["learner"] == 1
    assert [step for step, _ in run.losses()] == list(range(1, 21))
    report(run.outcome("9 learner's host cut off, and back", "its wire", restarted="learner"))


def cut_off_the_learner(run: FaultyRun, cluster: RayHosts) -> Iterator[None]:
    """Go on at each ``next`` as far as the run has come."""
    while run.step() < 6:
        yield
    host = cluster.at(run.json("processes.json")["learner-0"]["address"])
    cluster.network.cut(host)
    while "learner-0 died" not in run.log.read_text():
        yield
    cluster.network.join(host)
    while cluster.runs_on(host):
        yield
    cluster.start(host)


def lose_a_node_twice(run: FaultyRun, head: RayNode, nodes: list[RayNode]) -> Iterator[None]:
    """Go on at each ``next`` as far as the run has come."""
    while run.step() < 6:
        yield
    nodes[-1].kill()
    nodes.append(RayNode(head.log.with_name("node-1.log"), joins=head, cpus=0, seat=1))
    while not restarts(run):
        yield
    nodes[-1].kill()
    while "going on with 1 of the samplers" not in run.log.read_text():
        yield
    step = run.step()
    while run.step() < step + 6:
        yield
    run.process.send_signal(signal.SIGTERM)


def restarts(run: FaultyRun) -> list[dict[str, Any]]:
    events = read_events(run.folder / "events.jsonl")
    return [event for event in events if event["event"] == "restarted"]
