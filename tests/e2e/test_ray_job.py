"""`ray job submit -- python -m orchestration.run` against a real Ray head on loopback."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.gathering import gather
from orchestration.scale import main as scale
from orchestration.verify import main as verify
from tests.e2e.ray_nodes import RAY, RayNode
from tests.e2e.tiny import ROOT, TINY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


class Jobs:
    """What a user does with `ray job`, from a folder that knows nothing of the project."""

    def __init__(self, head: RayNode, home: Path) -> None:
        self._head = head
        self._home = home

    def submit(self, name: str, *overrides: str, options: tuple[str | Path, ...] = ()) -> str:
        """Submit a tiny run, and wait for its end unless the options say otherwise."""
        places = (f"name={name}", f"output={self._home}/runs", f"cache={self._home}/cache")
        command = ("python", "-m", "orchestration.run", "quickstart", *TINY, *places, *overrides)
        return self._job("submit", *options, "--", *command)

    def stop(self, submission: str) -> str:
        return self._job("stop", submission)

    def read(self, name: str, file: str) -> Any:
        """A JSON file of a run; None as long as there is none."""
        path = self._home / "runs" / name / file
        return json.loads(path.read_text()) if path.exists() else None

    def wait(self, name: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the status of a run is so; returns it."""
        deadline = time.monotonic() + 300
        while not ((status := self.read(name, "status.json")) and until(status)):
            assert time.monotonic() < deadline, status
            assert not status or status["state"] != "failed", status
            time.sleep(0.5)
        return status

    def _job(self, verb: str, *words: str | Path) -> str:
        """Call `ray job`; a head answers before its job agent is there."""
        command = [RAY, "job", verb, "--address", self._head.dashboard, *words]
        deadline = time.monotonic() + 90
        while True:
            done = subprocess.run(
                command,
                cwd=self._home,
                env=self._head.environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            if "No available agent" not in done.stderr or time.monotonic() > deadline:
                assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
                return done.stdout
            time.sleep(2)


def scraped_step(status: dict[str, Any]) -> float:
    """The step that a run's exporter tells."""
    if not status["metrics_url"]:
        return 0
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        text = opener.open(status["metrics_url"], timeout=5).read().decode()
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("dpkd_step ")]
    return float(lines[0].split()[1]) if lines else 0


def test_a_submitted_job_runs_from_an_uploaded_working_directory(tmp_path):
    with RayNode(tmp_path / "head.log") as head:
        jobs = Jobs(head, tmp_path)
        jobs.submit("submitted", "learner.steps=3", options=("--working-dir", ROOT))
    summary = jobs.read("submitted", "summary.json")
    assert summary["steps"] == 3
    assert summary["ledger"]["in_flight"] == 0
    assert summary["weight_sync"]["verified"] is True


NO_GRACE = ("--runtime-env-json", '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "0"}}')
"""Ray's SIGKILL follows at once: no driver comes to its end in such a grace."""


def assert_told_as_killed(run: Path) -> None:
    """No last word is in the run folder, and nobody takes the run for one that goes on."""
    deadline = time.monotonic() + 30
    while gather(run).state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert json.loads((run / "status.json").read_text())["state"] == "running", "no time for it"
    assert gather(run).state == "crashed"
    assert scale([str(run), "2"]) == 2


def test_one_of_two_jobs_is_stopped_goes_on_is_killed_goes_on_and_loses_nothing(tmp_path):
    """Without a working directory and without tokens; the package is installed."""
    no_wait = ("--no-wait", "--submission-id")
    with RayNode(tmp_path / "head.log", cpus=4, auth="disabled") as head:
        jobs = Jobs(head, tmp_path)
        jobs.submit("long", "learner.steps=5000", options=(*no_wait, "first"))
        jobs.wait("long", lambda status: scraped_step(status) >= 3)
        jobs.submit("short", "learner.steps=5", options=(*no_wait, "second"))
        jobs.wait("short", lambda status: status["state"] == "succeeded")
        assert jobs.wait("long", lambda status: True)["state"] == "running", "the other's end"
        jobs.stop("first")
        stopped = jobs.wait("long", lambda status: status["state"] == "stopped")
        assert stopped["reason"] == "SIGTERM" and stopped["exit_code"] == 143
        often = ("learner.steps=5000", "checkpoint.every=2", "resume=auto")
        jobs.submit("long", *often, options=(*no_wait, "third", *NO_GRACE))
        jobs.wait("long", lambda status: scraped_step(status) >= stopped["step"] + 5)
        jobs.stop("third")
        assert_told_as_killed(tmp_path / "runs" / "long")
        steps = jobs.read("long", "status.json")["step"] + 4
        jobs.submit("long", f"learner.steps={steps}", "resume=auto")
    summary = jobs.read("long", "summary.json")
    assert summary["steps"] == steps
    assert stopped["step"] + 2 <= summary["resumed_at"] < steps, "from a checkpoint of the killed"
    for name, made in (("long", steps), ("short", 5)):
        assert jobs.read(name, "summary.json")["ledger"] == {
            "issued": 8 * made,
            "consumed": 8 * made,
            "in_flight": 0,
            "dropped": {},
        }
        assert verify([str(tmp_path / "runs" / name)]) == 0
