"""Runs on several hosts, each with a network of its own; their wires are cut, and mended."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.ledger import read_events
from tests.e2e.hosts import Host, Traffic
from tests.e2e.ray_hosts import LEARNER, SAMPLER, SEATED, TEACHER, RayHosts
from tests.e2e.tiny import TinyRun
from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SAMPLERS = ("sampler-0", "sampler-1", "sampler-2")
NOTHING = Traffic(0, 0)
READ = (
    "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=9).read().decode())"
)


def test_hosts_are_cut_off_and_come_back_and_nothing_is_lost(tmp_path):
    settings = (
        *("learner.steps=32", "student.replicas=3", "replay.max_policy_lag=2"),
        # Weights of 470 KB: more than Ray sends inside a message.
        *("student.make.hidden_size=64", "monitoring.host=0.0.0.0", "monitoring.role_port=9110"),
    )
    with RayHosts(tmp_path, LEARNER, TEACHER | SAMPLER, SAMPLER, SAMPLER, SAMPLER) as cluster:
        run = FaultyRun(
            tmp_path,
            *(*settings, *SEATED, f"cluster.address={cluster.address}"),
            on=cluster.head,
        )
        story = Story(run, cluster)
        told = story.tell()
        assert run.wait(lambda: next(told, None)) == 0, run.tail()
        assert next(told, "the end") == "the end", "the run was over before"
        run.verify()
        assert run.survivors() == []
    summary = run.json("summary.json")
    assert summary["ledger"] == {"issued": 256, "consumed": 256, "in_flight": 0, "dropped": {}}
    assert summary["restarts"] == {"sampler": 2, "teacher": 0, "learner": 0, "queue": 0}
    outcome = run.outcome("9 hosts cut off", "wires")
    assert (outcome.lost, outcome.twice) == (0, 0)
    weights = summary["weight_sync"]["bytes"] * story.pushes
    sampler, idle, learner = story.traffic
    assert sampler.received > weights > 10 * idle.received, "weights come by the wire"
    assert weights < learner.sent < 1.8 * weights, "once: the samplers have the rest of each other"
    assert sampler.sent > 2 / 3 * weights, "a third of them, to two others"


def test_ranks_on_two_hosts_learn_together(tmp_path):
    ranks = ("learner.ranks=2", "learner.zero_stage=2", "learner.steps=3")
    settings = (*ranks, *SEATED, "evaluation.generate=false")  # there are ranks alone
    with RayHosts(tmp_path, LEARNER, LEARNER) as cluster:
        address = f"cluster.address={cluster.address}"
        run = TinyRun(tmp_path, *settings, address, recipe="sft", on=cluster.head)
        assert run.wait(timeout=200) == 0, run.tail()
    where = run.json("processes.json")
    assert {where[f"learner-{rank}"]["address"] for rank in (0, 1)} == {"10.77.0.2", "10.77.0.3"}


class Story:
    """What befalls the hosts of one run, told piece by piece while it goes on.

    One more host has room for a sampler than there are: the sampler of a host that is cut off
    moves there, and when that is cut off in its turn, to the first, which is back by then.
    """

    def __init__(self, run: FaultyRun, cluster: RayHosts) -> None:
        self.run = run
        self.network = cluster.network
        self.cluster = cluster
        self.moved: list[str] = []
        """Samplers that lost their host, in turn."""
        self.pushes = 0
        """Of weights, over which was counted what hosts received."""
        self.traffic = (NOTHING, NOTHING, NOTHING)
        """Of a sampler's host that has nothing else, of one that has nothing, of the learner's."""

    def tell(self) -> Iterator[None]:
        """Tell it."""
        yield from self.steps(2)
        self.look_at_the_metrics()
        yield from self.count_the_bytes()
        yield from self.cut_off_shortly(self.host("teacher-0"))
        first = self.cut_off_a_sampler()
        yield from self.until_it_moved()
        self.network.join(first)
        second = self.cut_off_a_sampler()
        while self.cluster.runs_on(first):
            yield  # what was taken for dead lives, and ends once it hears of that
        self.cluster.start(first)
        yield from self.until_it_moved()
        assert first in self.hosts_of_samplers()
        assert second not in self.hosts_of_samplers()

    def look_at_the_metrics(self) -> None:
        """Read the numbers of every part from the driver's host."""
        (file,) = (self.run.folder.parents[1] / "cache" / "targets").glob("*.json")
        groups = json.loads(file.read_text())
        addresses = {group["targets"][0].partition(":")[0] for group in groups}
        hosts = {self.host(name).address for name in ("learner-0", "teacher-0", *SAMPLERS)}
        assert addresses == hosts | {"127.0.0.1"}
        for group in groups:
            url = f"http://{group['targets'][0]}/metrics"
            assert "dpkd_" in self.cluster.head.run(sys.executable, "-c", READ, url)

    def count_the_bytes(self) -> Iterator[None]:
        """Compare a host that has a sampler alone with one that has nothing."""
        teacher, used = self.host("teacher-0"), self.hosts_of_samplers()
        busy = next(host for host in used if host is not teacher)
        idle = next(iter(set(self.network.hosts[3:]) - set(used)), None)
        watched = (busy, idle, self.host("learner-0"))
        before = [host.traffic() if host else NOTHING for host in watched]
        step = self.run.step()
        yield from self.steps(8)
        after = [host.traffic() if host else NOTHING for host in watched]
        self.pushes = self.run.step() - step - 1  # one may have been half way
        sampler, idle, learner = map(Traffic.since, after, before)
        self.traffic = (sampler, idle, learner)

    def cut_off_shortly(self, host: Host) -> Iterator[None]:
        """Nobody is declared dead for that."""
        self.network.cut(host)
        time.sleep(2)
        self.network.join(host)
        yield from self.steps(3)
        assert not restarts(self.run)

    def cut_off_a_sampler(self) -> Host:
        """Cut off a host that has a sampler and nothing else."""
        teacher = self.host("teacher-0")
        name = next(name for name in SAMPLERS if self.host(name) is not teacher)
        self.moved.append(name)
        host = self.host(name)
        self.network.cut(host)
        return host

    def until_it_moved(self) -> Iterator[None]:
        """Wait until a sampler works elsewhere, the last that was cut off."""
        while [event["role"] for event in restarts(self.run)] != self.moved:
            yield
        yield from self.steps(2)

    def steps(self, count: int) -> Iterator[None]:
        """Wait for so many."""
        last = self.run.step() + count
        while self.run.step() < last:
            yield

    def host(self, name: str) -> Host:
        """Return where a part is."""
        return self.cluster.at(self.run.json("processes.json")[name]["address"])

    def hosts_of_samplers(self) -> list[Host]:
        return [self.host(name) for name in SAMPLERS]


def restarts(run: FaultyRun) -> list[dict[str, Any]]:
    events = read_events(run.folder / "events.jsonl")
    return [event for event in events if event["event"] == "restarted"]
