"""`ray job submit -- python -m orchestration.run` against a real Ray head on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.tiny import ROOT, TINY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
RAY = Path(sys.executable).with_name("ray")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def head(tmp_path):
    """A Ray head of our own; yields its dashboard's address, ends it by pid."""
    gcs, dashboard, client, agent = _free_ports(4)
    log = (tmp_path / "head.log").open("w")
    process = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={gcs}", "--dashboard-host=127.0.0.1"),
            *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            f"--dashboard-agent-listen-port={agent}",
        ],
        env=_environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, process, tmp_path / "head.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """The environment of an activated .venv: a job's `python` is looked up by the head's PATH."""
    return {**os.environ, "PATH": f"{RAY.parent}:{os.environ['PATH']}"}


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    request = urllib.request.Request(
        f"{address}/api/version",
        headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"},
    )
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(request, timeout=2):
                return
        except OSError:
            time.sleep(0.5)


def _submit(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Submit and wait for the end; a head answers before its job agent is there."""
    deadline = time.monotonic() + 90
    while True:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_a_submitted_job_runs_from_an_uploaded_working_directory(head, tmp_path):
    command: list[str | Path] = [
        *(RAY, "job", "submit", "--address", head, "--working-dir", ROOT, "--"),
        *("python", "-m", "orchestration.run", "quickstart", *TINY),
        *("name=submitted", f"output={tmp_path}", f"cache={tmp_path}/cache", "learner.steps=3"),
    ]
    done = _submit(command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "submitted" / "summary.json").read_text())
    assert summary["steps"] == 3
    assert summary["ledger"]["in_flight"] == 0
    assert summary["weight_sync"]["verified"] is True
