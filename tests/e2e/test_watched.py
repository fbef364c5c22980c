"""A real Prometheus finds a real run, and what it holds is what the catalogue says."""

import contextlib
import json
import math
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.metrics import CATALOGUE, METRICS
from orchestration.watch import find_program
from tests.e2e.tiny import ROOT, TinyRun

PROCESSES = {"driver", "sampler-0", "teacher-0", "learner-0", "ray"}
DASHBOARD = ROOT / "deploy/grafana/dpkd.json"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


class Prometheus:
    """The API of a server that listens on loopback."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **query: str) -> Any:
        """Return the ``data`` of an answer; None while nobody answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            url = f"{self._url}/{path}?{urllib.parse.urlencode(query)}"
            with opener.open(url, timeout=5) as answer:
                return json.loads(answer.read())["data"]
        except OSError:
            return None

    def values(self, expression: str) -> list[float]:
        """Return every value that a range of the last ten minutes has of one series."""
        now = time.time()
        data = self.ask(
            "query_range", query=expression, start=str(now - 600), end=str(now), step="1"
        )
        found = data["result"] if data else []
        return [float(value) for series in found for _, value in series["values"]]


@contextlib.contextmanager
def watching(cache: Path) -> Iterator[Prometheus]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*(sys.executable, "-m", "orchestration.watch"), "--cache", str(cache)]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT)
    try:
        yield Prometheus(port)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def unanswered(prometheus: Prometheus) -> set[str]:
    """Return the dashboard's expressions that have had no number of the run; NaN is none."""
    asked = {
        target["expr"].replace("$run", "watched").replace("$__rate_interval", "1m")
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    }
    return {each for each in asked if not any(map(math.isfinite, prometheus.values(each)))}


def answering(prometheus: Prometheus) -> set[str]:
    """Return the processes of the run that were scraped."""
    up = prometheus.ask("query", query='max_over_time(up{run="watched"}[10m])')
    return {one["metric"]["process"] for one in up["result"] if one["value"][1] == "1"}


def never_seen() -> set[str]:
    """Metrics that this run has no value of, its objective or its settings having none."""
    return {
        "loss_nll",
        "loss_sft",
        "loss_divergence",
        "loss_policy_gradient",
        "loss_single_step",
        "loss_lm",
    }


@pytest.mark.skipif(
    find_program("prometheus") is None, reason="Prometheus is not installed: see `make tools`"
)
def test_a_real_prometheus_finds_a_run_by_itself_and_sees_it_learn(tmp_path):
    run = TinyRun(tmp_path, "learner.steps=9000", "checkpoint.every=5", name="watched")
    excused = {f'{CATALOGUE[key].name}{{run=~"watched"}}' for key in never_seen()}
    with watching(tmp_path / "cache") as prometheus:
        moved: set[str] = set()
        empty: list[set[str]] = []
        told: list[bool] = []

        def look() -> None:
            for name in ("dpkd_reward_teacher", "dpkd_reverse_kl_k1_nats"):
                if len(set(prometheus.values(f'{name}{{run="watched"}}'))) >= 3:
                    moved.add(name)
            if len(moved) == 2 and not told:
                empty.append(unanswered(prometheus))
            whole = empty and empty[-1] <= excused and answering(prometheus) == PROCESSES
            if whole and not told:
                run.process.send_signal(signal.SIGINT)
                told.append(True)
            time.sleep(1)

        assert run.wait(look) in (0, 130), run.tail()
        assert moved == {"dpkd_reward_teacher", "dpkd_reverse_kl_k1_nats"}
        assert empty[-1] <= excused
        assert answering(prometheus) == PROCESSES
        assert any(name.startswith("ray_") for name in prometheus.ask("label/__name__/values"))
        kept = {
            name for name in prometheus.ask("label/__name__/values") if name.startswith("dpkd_")
        }
    endings = ("_bucket", "_sum", "_count")
    known = {metric.name for metric in METRICS if metric.kind != "histogram"} | {
        metric.name + ending
        for metric in METRICS
        if metric.kind == "histogram"
        for ending in endings
    }
    assert kept <= known
    assert list((tmp_path / "cache" / "targets").iterdir()) == []
