"""The file that tells Prometheus of a run, and the command that starts one."""

import json
import socket
from pathlib import Path

import pytest
import yaml

from orchestration import watch
from orchestration.roles import Process
from orchestration.targets import TargetFile
from tests.builders import run_config
from tests.deploy.promtool import promtool


def here(port: int | None) -> Process:
    return Process(socket.gethostname(), 7, "10.0.0.1", port)


def test_a_run_s_target_is_there_while_it_runs(tmp_path):
    config = run_config(name="mine", cache=tmp_path)
    driver = {"targets": ["127.0.0.1:9108"], "labels": {"run": "mine", "process": "driver"}}
    sampler = {"targets": ["127.0.0.1:9110"], "labels": {"run": "mine", "process": "sampler-0"}}
    with TargetFile(config, 9108) as file:
        assert list((tmp_path / "targets").glob("mine-*.json")) == [file.path]
        assert json.loads(file.path.read_text()) == [driver]
        file.show({"sampler-0": here(9110), "queue": here(None), "teacher-0": None})
        assert json.loads(file.path.read_text()) == [driver, sampler]
        file.show({})
        assert json.loads(file.path.read_text()) == [driver]
    assert not file.path.exists()


@pytest.mark.parametrize(("host", "seen"), [("0.0.0.0", ["10.0.0.7:9110"]), ("127.0.0.1", [])])
def test_a_part_on_another_machine_is_a_target_where_it_can_be_reached(tmp_path, host, seen):
    config = run_config(cache=tmp_path, monitoring={"host": host})
    with TargetFile(config, None) as file:
        file.show({"sampler-0": Process("elsewhere", 7, "10.0.0.7", 9110)})
        groups = json.loads(file.path.read_text()) if file.path.exists() else []
        assert [target for group in groups for target in group["targets"]] == seen


def test_a_run_that_serves_nothing_leaves_no_target(tmp_path):
    with TargetFile(run_config(cache=tmp_path), None) as file:
        assert not file.path.exists()


def test_a_target_that_cannot_be_written_fails_no_run(tmp_path, caplog):
    (tmp_path / "targets").write_text("in the way")
    with TargetFile(run_config(cache=tmp_path), 9108) as file:
        file.show({"sampler-0": here(9110)})
    assert "a local Prometheus is not told" in caplog.text


def test_runs_of_one_name_in_two_folders_do_not_take_each_other_s_target_away(tmp_path):
    first, second = (
        run_config(name="mine", cache=tmp_path, output=tmp_path / place) for place in ("a", "b")
    )
    with TargetFile(first, 9108) as file:
        with TargetFile(second, 9109):
            assert len(list((tmp_path / "targets").glob("*.json"))) == 2
        assert file.path.exists()


@pytest.mark.parametrize(
    ("host", "scraped"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("node-3", "node-3")],
)
def test_a_target_is_an_address_that_can_be_asked(tmp_path, host, scraped):
    config = run_config(cache=tmp_path, monitoring={"host": host})
    with TargetFile(config, 9108) as file:
        assert json.loads(file.path.read_text())[0]["targets"] == [f"{scraped}:9108"]


def test_prometheus_is_told_of_runs_of_ray_and_of_the_alerts(tmp_path):
    told = yaml.safe_load(watch.settings(tmp_path))
    files = {job["job_name"]: job["file_sd_configs"][0]["files"] for job in told["scrape_configs"]}
    assert files == {"dpkd": [f"{tmp_path}/targets/*.json"], "ray": [str(watch.RAY_TARGETS)]}
    assert [Path(rules).exists() for rules in told["rule_files"]] == [True]


def test_without_prometheus_it_says_where_to_get_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watch, "find_program", lambda name: None)
    assert watch.main(["--cache", str(tmp_path)]) == 3
    assert (
        "Prometheus is not installed: on Debian and Ubuntu `make tools`" in capsys.readouterr().err
    )


def test_a_prometheus_that_cannot_start_says_why(tmp_path, monkeypatch, capsys):
    program = tmp_path / "broken"
    program.write_text('#!/bin/sh\necho level=error err=\\"port 9090 is taken\\"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(watch, "find_program", lambda name: str(program))
    assert watch.main(["--cache", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert "Prometheus ended with exit code 1" in said and "port 9090 is taken" in said


def test_its_settings_are_right_in_prometheus_s_eyes(tmp_path):
    path = tmp_path / "prometheus.yml"
    path.write_text(watch.settings(tmp_path))
    assert "is valid prometheus config file syntax" in promtool("check", "config", str(path))
