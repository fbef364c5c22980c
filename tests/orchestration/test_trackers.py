"""Trackers are told what the run is, read back with their own libraries; and never in its way."""

import importlib
import math
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.errors import ConfigError, DependencyError
from configs.monitoring import MonitoringConfig
from orchestration import trackers
from orchestration.exporter import MetricsHub
from orchestration.trackers import Identity, Trackers, open_trackers
from tests.builders import run_config

ROOT = Path(__file__).parents[2]
STEP = {"loss": 0.5, "reward_teacher": 1.25, "pairs": 8.0}


def config_of(*names: str, **tracking: str):
    return run_config(name="mine", monitoring={"tracking": {"to": list(names), **tracking}})


def tell(folder: Path, *names: str, steps: tuple[int, ...] = (1, 2)) -> None:
    opened = open_trackers(config_of(*names), folder, print)
    hub = MetricsHub(MonitoringConfig(port=0))
    hub.track(opened)
    if steps[0] == 1:  # not where a run goes on
        hub.evaluated("before", 0, {"rouge_l": 40.0})
    for step in steps:
        hub.record_step(step, STEP, queue={"depth": 3})
    hub.evaluated("teacher", steps[-1], {"rouge_l": 60.0})
    hub.close()
    opened.close()


def test_tensorboard_reads_every_step_and_evaluation_once_also_of_a_run_that_went_back(tmp_path):
    tell(tmp_path, "tensorboard", steps=(1, 2, 3))
    tell(tmp_path, "tensorboard", steps=(3, 4))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5)]
    assert events.Scalars("train/queue_depth")[0].value == 3
    assert [event.step for event in events.Scalars("student/rouge_l")] == [0]
    assert events.Scalars("teacher/rouge_l")[-1].value == 60


def wandb_records(file: Path) -> Iterator[Any]:
    """Read W&B's file: blocks of 32 KiB, records as in LevelDB's log, protobuf in them."""
    record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # a block's end is padded
            at += 32768 - at % 32768
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record.FromString(parts)
            parts = b""


def test_wandb_keeps_a_whole_run_without_a_network(tmp_path):
    tell(tmp_path, "wandb")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    told = {record.WhichOneof("record_type"): record for record in wandb_records(file)}
    assert (told["run"].run.display_name, told["run"].run.project) == ("mine", "dpkd")
    rows = [
        {"".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in wandb_records(file)
        if record.WhichOneof("record_type") == "history"
    ]
    found = {row["_step"]: row for row in rows}
    assert found["0"]["student/rouge_l"] == "40"
    assert (found["1"]["train/loss"], found["1"]["train/reward_teacher"]) == ("0.5", "1.25")
    assert found["2"]["teacher/rouge_l"] == "60"


def test_trackio_keeps_a_run_in_its_own_folder(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from tests.orchestration.test_trackers import tell\n"
        f"tell(Path({str(tmp_path)!r}), 'trackio')\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path)}  # read when it is imported
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
    rows = sqlite3.connect(tmp_path / "dpkd.db").execute("select * from metrics").fetchall()
    assert len(rows) == 4, "two steps, two evaluations"
    assert sum("train/loss" in str(row) and "mine-" in str(row) for row in rows) == 2


def test_a_run_that_goes_on_is_known_again_and_another_in_its_place_is_not(tmp_path):
    first, again = Identity.of(tmp_path), Identity.of(tmp_path)
    assert (first.goes_on, again) == (False, Identity(first.key, goes_on=True))
    (tmp_path / "another").mkdir()
    assert Identity.of(tmp_path / "another").key != first.key


def test_tensorboard_shows_a_step_that_was_made_again_as_it_was_the_last_time(tmp_path):
    opened = open_trackers(config_of("tensorboard"), tmp_path, print)
    for step, loss in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.7), (3, 0.8)):
        opened.stepped(step, {"loss": loss})
    opened.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, round(event.value, 3)) for event in events.Scalars("train/loss")]
    assert losses == [(1, 0.1), (2, 0.7), (3, 0.8)]


def test_a_tracker_that_fails_is_left_out_and_the_others_and_the_run_go_on():
    told: list[tuple[int, dict[str, float]]] = []
    said: list[str] = []

    class Good:
        def log(self, step, values):
            told.append((step, dict(values)))

        def close(self):
            raise OSError("disk full")

    class Bad:
        def log(self, step, values):
            raise RuntimeError("no such run")

        def close(self):
            raise AssertionError("it was left out")

    both = Trackers({"wandb": Bad(), "trackio": Good()}, said.append)
    both.stepped(1, {"loss": math.nan})
    both.evaluated("student", 1, {"rouge_l": 1.0})
    both.close()
    both.close()
    assert [step for step, _ in told] == [1, 1]
    assert said == [
        "wandb failed and is told nothing more: no such run",
        "trackio failed and is told nothing more: disk full",
    ]


def test_one_that_is_not_installed_or_does_not_start_is_named_before_anything_runs(
    tmp_path, monkeypatch
):
    closed: list[str] = []

    class Opened:
        def __init__(self, *_):
            pass

        def close(self):
            closed.append("tensorboard")

    def no_login(*_):
        raise RuntimeError("no login")

    makers = {"tensorboard": Opened, "wandb": no_login}
    monkeypatch.setattr(trackers, "_MAKERS", makers)
    with pytest.raises(DependencyError, match=r"names wandb, which did not start \(no login\)"):
        open_trackers(config_of("tensorboard", "wandb"), tmp_path, print)
    assert closed == ["tensorboard"], "what was opened before is closed"
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install trackio, or leave it out"):
        open_trackers(config_of("trackio"), tmp_path, print)


def test_none_is_asked_for_unless_the_recipe_says_so(tmp_path):
    open_trackers(run_config(), tmp_path, print).close()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_one_is_refused_with_the_list():
    from configs.load import load

    with pytest.raises(ConfigError, match=r"tensorboard.*wandb.*trackio"):
        load("quickstart", ["monitoring.tracking.to=[mlflow]"])
