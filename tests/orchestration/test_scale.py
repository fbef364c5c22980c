"""`python -m orchestration.scale`: the wish for more or fewer samplers, and whom it reaches."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import dump, load
from orchestration.scale import WISH_NAME, main, wanted_samplers, wish


def a_run(folder: Path, *overrides: str, state: str = "running") -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(load("quickstart", overrides)))
    (folder / "status.json").write_text(json.dumps({"state": state}) if state else "{")
    return folder


def test_a_wish_is_left_with_the_run_and_a_later_one_replaces_it(tmp_path, capsys):
    run = a_run(tmp_path / "run")
    assert wanted_samplers(run, 1) == 1
    assert main([str(run), "4"]) == 0
    assert "shall have 4 sampler(s)" in capsys.readouterr().out
    assert wanted_samplers(run, 1) == 4
    assert main([str(run), "2"]) == 0
    assert wanted_samplers(run, 1) == 2
    assert wanted_samplers(run, 8) == 8, "another recipe goes before an old wish"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"wanted": "many"}', '{"wanted": null}'])
def test_a_file_that_is_no_wish_is_none(tmp_path, content):
    (tmp_path / WISH_NAME).write_text(content)
    assert wanted_samplers(tmp_path, 3) == 3


@pytest.mark.parametrize(
    ("overrides", "state", "count", "why"),
    [
        ((), "succeeded", 2, "is not running (succeeded); set student.replicas=2"),
        ((), "running", 0, "supervision.min_samplers is 1, and 0 are fewer; give 1 or more"),
        (("supervision.min_samplers=2", "student.replicas=2"), "running", 1, "give 2 or more"),
        (("objective.type=sft",), "running", 2, "objective.type=sft draws no student responses"),
        (("cluster.local=true",), "running", 2, "cluster.local runs one actor of each role"),
        ((), "", 2, "unknown: its status.json is damaged"),
        (("cluster.sampler.gpus=1",), "running", 2, "weights travel by a CUDA transport"),
        (("deterministic=true", "replay.max_policy_lag=0"), "running", 2, "deterministic"),
    ],
)
def test_a_run_that_cannot_says_why(
    tmp_path, overrides: tuple[str, ...], state: str, count: int, why: str
) -> None:
    run = a_run(tmp_path / "run", *overrides, state=state)
    with pytest.raises(ConfigError, match=re.escape(why)):
        wish(run, count)
    assert not (run / WISH_NAME).exists()


def test_a_run_that_was_killed_is_not_told_that_samplers_will_join(tmp_path, capsys):
    run = a_run(tmp_path / "run")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    status = {"state": "running", "host": socket.gethostname(), "pid": ended.pid}
    (run / "status.json").write_text(json.dumps(status))
    assert main([str(run), "4"]) == 2
    assert "is not running (crashed); set student.replicas=4" in capsys.readouterr().err
    assert not (run / WISH_NAME).exists()


def test_a_wish_that_cannot_be_left_is_a_sentence(tmp_path, capsys):
    run = a_run(tmp_path / "run")
    (run / f".{WISH_NAME}.tmp").mkdir()  # in the way, whoever asks
    assert main([str(run), "4"]) == 2
    assert f"error: the wish cannot be left in {run} (Is a directory)" in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "2"]) == 2
    assert f"{tmp_path} is no run folder" in capsys.readouterr().err
