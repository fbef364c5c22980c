"""What is told of a run from outside: its own last word, or that it was killed before it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestration import run_lock, run_state
from orchestration.run_lock import RunLock
from orchestration.run_state import read_status, state_of, write_down_a_crash


def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def a_run(folder: Path, state: str = "running", **changes: Any) -> Path:
    """Leave the status of a run on another machine, but for ``changes``."""
    folder.mkdir()
    status = {"state": state, "step": 7, "host": "elsewhere", "pid": 1, **changes}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def lock(folder: Path, silent: float, **changes: Any) -> None:
    run_lock.lock_path(folder).unlink(missing_ok=True)
    with RunLock(folder) as held:
        identity = json.loads(held.path.read_text())
    held.path.write_text(json.dumps(identity | changes))
    then = time.time() - silent
    os.utime(held.path, (then, then))


def told(folder: Path) -> str:
    status = read_status(folder)
    assert status is not None
    return state_of(folder, status)


@pytest.mark.parametrize("state", ["succeeded", "stopped", "failed"])
def test_a_last_word_is_believed(tmp_path, state):
    run = a_run(tmp_path / "run", state)
    lock(run, silent=9999, host="elsewhere")
    assert told(run) == state


def test_a_run_on_another_machine_goes_on_while_its_lock_beats(tmp_path):
    run = a_run(tmp_path / "run")
    lock(run, silent=0, host="elsewhere")
    assert told(run) == "running"
    lock(run, silent=run_lock.SILENCE_SECONDS + 1, host="elsewhere")
    assert told(run) == "crashed"


def test_a_run_here_goes_on_while_its_process_does(tmp_path):
    run = a_run(tmp_path / "run", host=socket.gethostname(), pid=os.getpid())
    with RunLock(run):
        assert told(run) == "running"
    lock(run, silent=0, pid=dead_pid())
    assert told(run) == "crashed"


def test_without_a_lock_the_process_of_this_machine_tells(tmp_path):
    here = socket.gethostname()
    assert told(a_run(tmp_path / "a", host=here, pid=os.getpid())) == "running"
    assert told(a_run(tmp_path / "b", host=here, pid=dead_pid())) == "crashed"
    assert told(a_run(tmp_path / "c")) == "running", "a copy of a run elsewhere: nobody can tell"


def test_a_run_that_ends_between_two_looks_has_not_crashed(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run", host=socket.gethostname(), pid=dead_pid())
    status = read_status(run)
    assert status is not None
    (run / "status.json").write_text(json.dumps(status | {"state": "succeeded"}))
    assert state_of(run, status) == "succeeded"


def test_a_folder_is_known_by_whatever_name_it_is_given(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run")
    lock(run, silent=9999, host="elsewhere")
    monkeypatch.chdir(run)
    assert told(Path()) == "crashed"


def test_the_next_start_writes_down_that_the_one_before_was_killed(tmp_path):
    run = a_run(tmp_path / "run")
    said: list[str] = []
    write_down_a_crash(run, said.append)
    assert said == [f"the run in {run} was killed: it left no last word at step 7"]
    status = read_status(run)
    assert status is not None
    assert (status["state"], status["reason"], status["step"]) == ("crashed", "it was killed", 7)
    write_down_a_crash(run, said.append)
    write_down_a_crash(a_run(tmp_path / "done", "succeeded"), said.append)
    write_down_a_crash(tmp_path / "none", said.append)
    assert len(said) == 1


def test_a_disk_that_is_full_is_heard_of_elsewhere(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state, "write_json", full)
    said: list[str] = []
    run = a_run(tmp_path / "run")
    write_down_a_crash(run, said.append)
    status = read_status(run)
    assert said and status and status["state"] == "running", "told, and left as it was"
