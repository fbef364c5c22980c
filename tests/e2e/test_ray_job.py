"""`ray job submit -- python -m orchestration.run` against a real Ray head on loopback."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.ray_nodes import RAY, RayNode, with_venv
from tests.e2e.tiny import ROOT, TINY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def _submit(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Submit and wait for the end; a head answers before its job agent is there."""
    deadline = time.monotonic() + 90
    while True:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=with_venv(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_a_submitted_job_runs_from_an_uploaded_working_directory(tmp_path):
    with RayNode(tmp_path / "head.log") as head:
        done = _submit(
            [
                *(RAY, "job", "submit", "--address", head.dashboard, "--working-dir", ROOT, "--"),
                *("python", "-m", "orchestration.run", "quickstart", *TINY, "name=submitted"),
                *(f"output={tmp_path}", f"cache={tmp_path}/cache", "learner.steps=3"),
            ]
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "submitted" / "summary.json").read_text())
    assert summary["steps"] == 3
    assert summary["ledger"]["in_flight"] == 0
    assert summary["weight_sync"]["verified"] is True
