"""A tiny comparison through the real command: its files, resuming it, stopping it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.tiny import ROOT, TINY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

METHODS = {
    "dpkd": {"overrides": ["objective.type=dpkd"]},
    "sft": {"overrides": ["objective.type=sft"]},
}


def _plan(home: Path, name: str, *overrides: str, **changes) -> Path:
    text = {
        "name": name,
        "dataset": "embedded",
        "overrides": [*TINY, f"cache={home / 'cache'}", *overrides],
        "methods": METHODS,
        "seeds": [0],
        "output": str(home / name),
        **changes,
    }
    path = home / f"{name}.yaml"
    path.write_text(json.dumps(text))
    return path


def _compare(plan: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestration.compare", str(plan)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def plan(home) -> Path:
    noise = {"sigmas": [0.0, 0.1], "method": "sft"}
    return _plan(home, "small", baseline="sft", noise=noise)


@pytest.fixture(scope="module")
def first(plan) -> subprocess.CompletedProcess[str]:
    return _compare(plan)


def test_a_comparison_leaves_tables_plots_and_logs(first, home):
    assert first.returncode == 0, first.stdout + first.stderr
    out = home / "small"
    table = (out / "table.md").read_text()
    assert "## Difference to sft" in table
    assert "Not done" not in table
    with (out / "results.csv").open() as file:
        found = {(row["method"], row["metric"]) for row in csv.DictReader(file)}
    for method in ("dpkd", "sft", "warm start", "teacher"):
        assert (method, "greedy_rouge_l") in found, method
    assert {path.name for path in (out / "logs").iterdir()} >= {"dpkd-seed0.log", "sft-seed0.log"}
    assert (out / "plots" / "curves.png").stat().st_size > 10_000


def test_each_run_is_one_line_on_the_terminal(first):
    lines = [line for line in first.stdout.splitlines() if line.startswith("[")]
    assert [line.split(":")[0] for line in lines] == ["[1/2] dpkd-seed0", "[2/2] sft-seed0"]


def test_methods_start_from_one_student_and_one_teacher(first, home):
    runs = [home / "small" / "runs" / f"{method}-seed0" for method in METHODS]
    models = [json.loads((run / "summary.json").read_text())["models"] for run in runs]
    assert models[0] == models[1]
    befores = [json.loads((run / "summary.json").read_text())["eval"]["before"] for run in runs]
    assert befores[0] == befores[1]


def test_noise_of_0_measures_what_the_run_itself_found(first, home):
    clean, noisy = json.loads((home / "small" / "noise" / "sft-seed0.json").read_text())["noise"]
    run = home / "small" / "runs" / "sft-seed0"
    after = json.loads((run / "summary.json").read_text())["eval"]["after"]
    assert clean["rouge_l"] == pytest.approx(after["rouge_l"], abs=1e-3)
    assert clean["reverse_kl_nats"] == pytest.approx(after["reverse_kl_nats"], abs=1e-3)
    assert noisy["reverse_kl_nats"] != clean["reverse_kl_nats"]


def test_a_second_invocation_runs_nothing(first, plan, home):
    statuses = sorted((home / "small" / "runs").glob("*/status.json"))
    before = [path.read_text() for path in statuses]
    again = _compare(plan)
    assert again.returncode == 0, again.stderr
    assert "2 runs, 2 of them done" in again.stdout
    assert not any(line.startswith("[") for line in again.stdout.splitlines())
    assert [path.read_text() for path in statuses] == before


def test_ctrl_c_ends_the_runs_cleanly_and_keeps_what_is_done(first, home):
    path = _plan(home, "long", "learner.steps=5000")
    command = [sys.executable, "-m", "orchestration.compare", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    status = home / "long" / "runs" / "dpkd-seed0" / "status.json"
    deadline = time.monotonic() + 600
    while not status.exists() or json.loads(status.read_text())["step"] < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    assert json.loads(status.read_text())["state"] == "stopped"
    assert not [child for child in family if child.is_running()]
    assert not (home / "long" / "table.md").exists(), "there is nothing to tell yet"
