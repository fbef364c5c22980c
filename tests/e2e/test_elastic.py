"""Samplers join a running job as the cluster grows, and leave it when fewer are wanted."""

import json
import signal
from collections.abc import Iterator

import pytest

from orchestration.ledger import read_events
from orchestration.scale import wish
from tests.e2e.ray_nodes import RayNode
from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SETTINGS = (
    *("learner.steps=5000", "student.replicas=2", "student.initial_replicas=1"),
    *(
        'cluster.sampler={"cpus":0,"custom":{"seat":1}}',
        "replay.max_policy_lag=1",
        "monitoring.timeline=true",
    ),
)


def test_a_sampler_joins_when_there_is_a_place_and_leaves_when_it_is_not_wanted(tmp_path):
    nodes: list[RayNode] = []
    with RayNode(tmp_path / "head.log", seat=1) as head:
        try:
            run = FaultyRun(tmp_path, *SETTINGS, f"cluster.address={head.address}")
            story = grow_and_shrink(run, head, nodes)
            code = run.wait(lambda: next(story, None), timeout=300)
        finally:
            for node in nodes:
                node.__exit__()
    assert code == 143, run.tail()
    came, went = happened(run, "joined"), happened(run, "left")
    assert [event["role"] for event in came] == ["sampler-1"]
    assert [event["role"] for event in went] == ["sampler-1"]
    assert drawn_by(run, "sampler-1") > 0, "it drew nothing"
    run.verify()


def grow_and_shrink(run: FaultyRun, head: RayNode, nodes: list[RayNode]) -> Iterator[None]:
    """Go on at each ``next`` as far as the run has come."""
    while run.step() < 3:
        yield
    assert "starting 1 learner rank(s), 1 of 2 student sampler(s)" in run.log.read_text()
    nodes.append(RayNode(head.log.with_name("node.log"), joins=head, cpus=0, seat=1))
    yield from until_later(run, "joined")
    wish(run.folder, 1)
    yield from until_later(run, "left")
    run.process.send_signal(signal.SIGTERM)


def until_later(run: FaultyRun, event: str) -> Iterator[None]:
    """Wait until it has happened, and some steps were made."""
    while not happened(run, event):
        yield
    step = run.step()
    while run.step() < step + 10:
        yield


def happened(run: FaultyRun, kind: str) -> list[dict]:
    events = read_events(run.folder / "events.jsonl")
    return [event for event in events if event["event"] == kind]


def drawn_by(run: FaultyRun, sampler: str) -> int:
    """Return how many of its calls to draw the timeline shows."""
    events = json.loads((run.folder / "timeline.json").read_text())
    rows = {event["args"]["name"]: event["pid"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["pid"] == rows.get(sampler)]
    return sum(span["args"].get("method") == "generate" for span in spans)
