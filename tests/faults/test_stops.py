"""A run that is told to stop, once and twice, and what comes in its way meanwhile."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
LOCAL = ("cluster.local=true", "deterministic=true", "checkpoint.every=2", "resume=auto")


def test_stops_second_runs_taken_ports_and_flipped_bytes_change_no_bit(tmp_path, report):
    calm = FaultyRun(tmp_path, *LOCAL, "learner.steps=16", name="calm")
    assert calm.wait() == 0, calm.tail()
    shutil.rmtree(tmp_path / "cache" / "teacher")
    settings = (*LOCAL, "learner.steps=16")

    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = FaultyRun(tmp_path, *settings, f"monitoring.port={port}", name="told")
        # The second one is refused while the first still starts: its steps are quick.
        while not list(run.folder.parent.glob(".told.lock")):
            time.sleep(0.05)
        second = FaultyRun(tmp_path, *settings, name="told", log="second")
        assert second.wait() == 2, second.tail()
        assert "belongs to a run that goes on (process" in second.tail()
        once = run.at_step(3, lambda: run.process.send_signal(signal.SIGTERM))
        assert run.wait(once) == 143, run.tail()
    said = run.log.read_text()
    assert f"port {port}" in said and "resume=auto" in said
    stopped_at = run.json("status.json")["step"]
    assert run.newest_checkpoint().name == f"step-{stopped_at:08d}"
    saved = run.student()

    # Its fourth step takes long enough for both signals, on a machine as quick or slow as may be.
    run = FaultyRun(tmp_path, *settings, faults="learner:forward:4:pause", name="told")
    story = interrupt_twice(run, after=stopped_at + 3)
    assert run.wait(lambda: next(story, None)) == 130, run.tail()
    assert "SIGINT: stopping at once" in run.log.read_text()
    assert run.student() == saved, "a student was saved that a stop at once has no time for"

    damaged = run.newest_checkpoint()
    weights = max(damaged.rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    run = FaultyRun(tmp_path, *settings, name="told")
    assert run.wait() == 0, run.tail()
    assert str(weights.relative_to(damaged)) in run.log.read_text()
    assert (run.losses(), run.student()) == (calm.losses(), calm.student())
    run.verify()
    report(run.outcome("13 checkpoint with a flipped byte", "a bit in its largest file"))
    report(run.outcome("17 SIGTERM once, SIGINT twice", "signals"))
    report(run.outcome("20 metrics port taken", "a socket on it"))
    report(run.outcome("21 two runs on one folder", "the same command"))


def interrupt_twice(run: FaultyRun, *, after: int) -> Iterator[None]:
    """Signal in the middle of the step that pauses for five seconds: before it has a batch, a run
    that is to finish its step has none to finish. The second signal waits until the first is heard:
    two that are pending are one.
    """
    while run.step() < after:
        yield
    begun = time.monotonic() + 2
    while time.monotonic() < begun:
        yield
    run.process.send_signal(signal.SIGINT)
    while "SIGINT: finishing the step" not in run.log.read_text():
        yield
    run.process.send_signal(signal.SIGINT)


def test_a_driver_that_is_killed_takes_its_actors_with_it(tmp_path, report):
    fault = "driver:consumed:6:kill"
    run = FaultyRun(tmp_path, "learner.steps=10", "resume=auto", faults=fault, name="headless")
    assert run.wait() == -9, run.tail()
    assert not [name for name in run.survivors() if "Agent" not in name]
    on = FaultyRun(tmp_path, "learner.steps=10", "resume=auto", name="headless")
    assert on.wait() == 0, on.tail()
    # Two helpers of Ray's own look for their dead head for a minute before they end.
    assert run.survivors(within=90) == []
    assert on.json("summary.json")["ledger"]["consumed"] == 80
    on.verify()
    report(on.outcome("7 driver killed, actors on Ray", fault))


def test_a_full_disk_costs_checkpoints_and_not_the_run(tmp_path, tmpfs, report):
    """The disk is full from the second checkpoint on, and for the first run only for a while."""
    disk = tmpfs(8 << 20)
    settings = (*LOCAL, f"checkpoint.folder={disk}", "checkpoint.max_failures=3")
    run = FaultyRun(tmp_path, *settings, "learner.steps=30", name="full")
    state = {"full": False, "free": False}

    def look() -> None:
        said = run.log.read_text()
        if not state["full"] and list(disk.rglob("LATEST")):
            state["full"] = True
            fill(disk)
        elif state["full"] and not state["free"] and "(2 in a row)" in said:
            state["free"] = True
            (disk / "ballast").unlink()

    assert run.wait(look) == 0, run.tail()
    assert state == {"full": True, "free": True}
    assert not list(disk.rglob("*.tmp")), "a half-written checkpoint stays"
    assert "No space left on device" in run.log.read_text()
    run.verify()
    report(run.outcome("14 disk full for two checkpoints", "a tmpfs filled up"))

    again = FaultyRun(tmp_path, *settings, "learner.steps=40", name="full")
    assert again.wait(lambda: fill(disk)) == 3, again.tail()
    assert "No space left on device" in again.json("status.json")["reason"]
    (disk / "ballast").unlink()
    on = FaultyRun(tmp_path, *settings, "learner.steps=40", name="full")
    assert on.wait() == 0, on.tail()
    assert [step for step, _ in on.losses()] == list(range(1, 41))
    on.verify()
    report(on.outcome("14 disk full for good", "a tmpfs filled up"))


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "ballast").open("ab") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(1 << 16))
        except OSError:
            pass
