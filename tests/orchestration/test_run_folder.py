"""What a run leaves on disk, and what becomes of the run before it."""

import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.run import RunConfig
from orchestration.run_folder import RunFolder, resolve_output, with_places


def _config(output: Path, **changes: object) -> RunConfig:
    source = {"model": "m"}
    return RunConfig.model_validate(
        {"name": "r", "output": output, "student": source, "teacher": source, **changes}
    )


def test_the_folder_holds_the_resolved_config_and_a_status(tmp_path):
    folder = RunFolder(_config(tmp_path))
    assert "seed: 0" in (folder.path / "config.yaml").read_text()
    assert json.loads((folder.path / "status.json").read_text())["state"] == "running"


def test_an_earlier_run_is_kept_under_a_number_by_default(tmp_path):
    for _ in range(3):
        RunFolder(_config(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r", "r.1", "r.2"]


def test_an_earlier_run_may_be_replaced_or_a_reason_to_refuse(tmp_path):
    (RunFolder(_config(tmp_path)).path / "mark").touch()
    RunFolder(_config(tmp_path, existing="replace"))
    assert not (tmp_path / "r" / "mark").exists()
    with pytest.raises(ConfigError, match="holds an earlier run"):
        RunFolder(_config(tmp_path, existing="refuse"))


def test_a_file_in_the_way_is_an_error_that_names_it(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(ConfigError, match="a file is in the way"):
        RunFolder(_config(tmp_path))


def test_a_submitted_jobs_relative_output_goes_where_it_outlives_the_job(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copy = tmp_path / "_ray_pkg_0123"
    assert resolve_output(Path("runs"), copy) == tmp_path / "home" / "dpkd" / "runs"
    assert resolve_output(tmp_path / "out", copy) == tmp_path / "out"
    with pytest.raises(ConfigError, match="throw-away copy"):
        resolve_output(copy / "runs", copy)


def test_cache_and_checkpoints_of_a_submitted_job_outlive_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copy = tmp_path / "_ray_pkg_0123" / "below"
    config = _config(Path("runs"), cache="kept", checkpoint={"folder": "saved"})
    settled = with_places(config, copy)
    below = tmp_path / "home" / "dpkd"
    assert (settled.output, settled.cache) == (below / "runs", below / "kept")
    assert settled.checkpoint.folder == below / "saved"
    assert with_places(_config(Path("runs")), copy).checkpoint.folder is None
    with pytest.raises(ConfigError, match=r"^cache=.*throw-away copy.*such as cache=~/kept"):
        with_places(_config(Path("runs"), cache=copy / "kept"), copy)
    with pytest.raises(ConfigError, match=r"^checkpoint\.folder=.*throw-away copy"):
        with_places(_config(Path("runs"), checkpoint={"folder": copy / "saved"}), copy)


def test_elsewhere_a_relative_output_is_below_the_current_folder(tmp_path):
    assert resolve_output(Path("runs"), tmp_path) == tmp_path / "runs"
