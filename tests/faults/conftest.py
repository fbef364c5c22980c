"""Collects one line a fault, and prints the table at the end."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.faulty_run import Outcome

_OUTCOMES = pytest.StashKey[list[Outcome]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = []


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make a file system in memory of so many bytes; gone after the test."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system may be mounted here ({done.stderr.strip()})")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def report(pytestconfig: pytest.Config):
    """Take one outcome for the table; a loss, or an effect applied twice, fails the test."""

    def add(outcome: Outcome) -> None:
        pytestconfig.stash[_OUTCOMES].append(outcome)
        assert (outcome.lost, outcome.twice) == (0, 0), outcome

    return add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    outcomes = config.stash[_OUTCOMES]
    if not outcomes:
        return
    terminalreporter.section("faults")
    row = "{:<46} {:<44} {:>12} {:>5} {:>6}"
    terminalreporter.line(row.format("fault", "injected by", "recovered, s", "lost", "twice"))
    for fault, injected, seconds, lost, twice in outcomes:
        shown = "-" if seconds is None else f"{seconds:.1f}"
        terminalreporter.line(row.format(fault, injected, shown, lost, twice))
