"""Prometheus's own checker."""

import subprocess
from pathlib import Path

import pytest

from orchestration.watch import find_program

ROOT = Path(__file__).parents[2]


def promtool(*arguments: str, given: str | None = None) -> str:
    """Return what promtool says of something that is right; ``given`` is its standard input."""
    program = find_program("promtool")
    if program is None:
        pytest.skip("promtool is not installed: `make tools` gets it on Debian and Ubuntu")
    done = subprocess.run(
        [program, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
