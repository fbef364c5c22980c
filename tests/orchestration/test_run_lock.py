"""One run a folder: who is refused, and which locks are stale."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.errors import ConfigError
from orchestration import run_lock
from orchestration.run_lock import RunLock


def held_by(folder: Path, **changes: Any) -> Path:
    """Leave the lock that a run in this very process would hold, but for ``changes``."""
    with RunLock(folder) as lock:
        holder = json.loads(lock.path.read_text())
    path = folder.with_name(f".{folder.name}.lock")
    path.write_text(json.dumps(holder | changes))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_folder_in_use_is_refused_and_its_user_named(tmp_path):
    with (
        RunLock(tmp_path / "run"),
        pytest.raises(ConfigError, match=f"process {os.getpid()} on {socket.gethostname()}"),
    ):
        RunLock(tmp_path / "run")


def test_a_run_in_another_process_is_seen(tmp_path):
    code = (
        "import pathlib, sys; from orchestration.run_lock import RunLock\n"
        "lock = RunLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {other.pid} on"):
            RunLock(tmp_path / "run")
        other.kill()
    with RunLock(tmp_path / "run") as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()


def test_the_lock_lies_beside_the_folder_and_goes_with_the_run(tmp_path):
    with RunLock(tmp_path / "deep" / "run") as lock:
        assert lock.path == tmp_path / "deep" / ".run.lock"
        assert names(tmp_path / "deep") == [".run.lock"]
    assert names(tmp_path / "deep") == []


def test_it_goes_with_a_run_that_fails_too(tmp_path):
    with pytest.raises(RuntimeError, match="broke"), RunLock(tmp_path / "run"):
        raise RuntimeError("broke")
    assert names(tmp_path) == []


def test_runs_of_other_names_do_not_meet(tmp_path):
    with RunLock(tmp_path / "a"), RunLock(tmp_path / "b"):
        assert names(tmp_path) == [".a.lock", ".b.lock"]


def assert_taken(folder: Path) -> None:
    """Take the lock, and see that it names this process then, and goes with it."""
    with RunLock(folder) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert not lock.path.exists()


def test_the_lock_of_a_dead_process_is_taken(tmp_path):
    held_by(tmp_path / "run", pid=dead_pid())
    assert_taken(tmp_path / "run")


def test_the_lock_of_a_process_that_nobody_waited_for_is_taken(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ended:
        process = psutil.Process(ended.pid)
        held_by(tmp_path / "run", pid=ended.pid, born=process.create_time())
        ended.kill()
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert_taken(tmp_path / "run")


def test_a_pid_that_was_given_to_another_process_since_is_not_the_holder(tmp_path):
    held_by(tmp_path / "run", born=1.0)
    assert_taken(tmp_path / "run")


def test_a_lock_from_before_the_machine_was_started_anew_is_taken(tmp_path):
    held_by(tmp_path / "run", boot="another")
    assert_taken(tmp_path / "run")


def test_a_holder_on_another_machine_is_believed_while_it_beats(tmp_path):
    path = held_by(tmp_path / "run", host="elsewhere", pid=1234)
    with pytest.raises(ConfigError, match="process 1234 on elsewhere"):
        RunLock(tmp_path / "run")
    silent = time.time() - run_lock.SILENCE_SECONDS - 1
    os.utime(path, (silent, silent))
    assert_taken(tmp_path / "run")


@pytest.fixture
def soon(monkeypatch) -> None:
    """A second of patience for a minute of it."""
    monkeypatch.setattr(run_lock, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.2)


@pytest.mark.parametrize("ahead", [0, 3600])
def test_a_retry_waits_until_a_holder_elsewhere_is_silent_and_takes_over(tmp_path, soon, ahead):
    path = held_by(tmp_path / "run", host="lost-head", pid=7)
    then = time.time() + ahead
    os.utime(path, (then, then))  # the disk's clock may be ahead of ours
    said: list[str] = []
    began = time.monotonic()
    with RunLock(tmp_path / "run", said.append) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert 0.8 < time.monotonic() - began < 3
    assert said == [
        f"{tmp_path / 'run'} is held by process 7 on lost-head: it is taken over after at most "
        "1.2 s without a sign of life"
    ]


def test_a_retry_is_refused_as_soon_as_a_holder_elsewhere_beats(tmp_path, soon):
    path = held_by(tmp_path / "run", host="elsewhere", pid=7)
    beat = threading.Timer(0.3, lambda: os.utime(path))
    beat.start()
    with pytest.raises(ConfigError, match=r"goes on \(process 7 on elsewhere"):
        RunLock(tmp_path / "run", lambda said: None)
    beat.join()
    assert json.loads(path.read_text())["pid"] == 7


def test_a_retry_takes_what_a_holder_elsewhere_lets_go_of(tmp_path, soon):
    path = held_by(tmp_path / "run", host="elsewhere", pid=7)
    threading.Timer(0.3, path.unlink).start()
    with RunLock(tmp_path / "run", lambda said: None) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()


def test_nobody_waits_for_a_holder_that_can_be_looked_for(tmp_path):
    said: list[str] = []
    with RunLock(tmp_path / "run"), pytest.raises(ConfigError, match="goes on"):
        RunLock(tmp_path / "run", said.append)
    held_by(tmp_path / "run", pid=dead_pid())
    RunLock(tmp_path / "run", said.append).__exit__()
    assert said == []


def test_a_holder_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.01)
    with RunLock(tmp_path / "run") as lock:
        os.utime(lock.path, (1.0, 1.0))
        deadline = time.monotonic() + 5
        while lock.path.stat().st_mtime == 1.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.path.stat().st_mtime > 1.0


@pytest.mark.parametrize("content", ['{"pid": 1', "[]", '{"pid": 1}'])
def test_a_torn_lock_is_taken(tmp_path, content):
    (tmp_path / ".run.lock").write_text(content)
    assert_taken(tmp_path / "run")


def test_of_many_that_find_a_stale_lock_at_once_one_takes_it(tmp_path, monkeypatch):
    look = run_lock.holder_of

    def look_slowly(folder: Path) -> run_lock.Holder | None:
        holder = look(folder)
        time.sleep(0.02)
        return holder

    monkeypatch.setattr(run_lock, "holder_of", look_slowly)
    held_by(tmp_path / "run", pid=dead_pid())
    taken: list[RunLock] = []
    refused: list[ConfigError] = []

    def take() -> None:
        try:
            taken.append(RunLock(tmp_path / "run"))
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 4)
    taken[0].__exit__()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="a file is in the way"):
        RunLock(tmp_path / "file" / "run")
