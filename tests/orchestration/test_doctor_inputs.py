"""The doctor's look at what a run reads and where it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from actors.tokenizer import train_tokenizer
from configs.data import DataConfig
from configs.errors import ConfigError
from configs.load import load
from configs.models import MakeModel, ModelSource
from orchestration.checkups import GIB, Finding, guarded
from orchestration.checkups_inputs import check_data, check_models, check_tokenizers
from orchestration.checkups_places import (
    check_disk,
    check_earlier_run,
    check_folders,
    check_temporary_files,
    existing_part,
    places_of,
    ray_folder,
)
from orchestration.run_lock import RunLock


def data(path: Path, *lines: str, **settings: object) -> Finding:
    """The finding as the doctor has it, errors included."""
    path.write_text("".join(f"{line}\n" for line in lines))
    config = DataConfig.model_validate({"train": path, **settings})
    return guarded("data", lambda: check_data(config))


def row(text: str = "yes") -> str:
    return json.dumps({"instruction": "Say", "context": "it", "response": text})


def model(folder: Path, *, texts: str = "say it word said") -> str:
    """A folder that is complete as far as files go."""
    train_tokenizer([texts], 300, folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"weight": np.zeros((1000, 5), np.float32)}, folder / "model.safetensors")
    return str(folder)


def models(*names: str | None, offline: bool = False) -> Finding:
    roles = ("teacher", "student")
    made = MakeModel()
    sources = [ModelSource(model=name, make=None if name else made) for name in names]
    pairs = list(zip(roles, sources, strict=False))
    return guarded("models", lambda: check_models(pairs, offline=offline))


def tokenizers(teacher: str, student: str) -> Finding:
    given = [
        f"{role}.{key}=null" for role in ("teacher", "student") for key in ("make", "warm_start")
    ]
    config = load("quickstart", [f"teacher.model={teacher}", f"student.model={student}", *given])
    return guarded("tokenizers", lambda: check_tokenizers(config))


def test_data_that_is_generated_needs_no_file():
    assert check_data(DataConfig()).detail == "4000 rows are generated"


def test_every_data_file_is_read(tmp_path):
    (tmp_path / "valid.jsonl").write_text(row() + "\n")
    (tmp_path / "corpus.txt").write_text("one\ntwo\nthree\n")
    extra = {"validation": tmp_path / "valid.jsonl", "corpus": tmp_path / "corpus.txt"}
    finding = data(tmp_path / "train.jsonl", row(), row(), **extra)
    assert finding.verdict == "ok"
    counts = [part.rpartition(": ")[2] for part in finding.detail.split("; ")]
    assert counts == ["2 rows", "1 rows", "3 rows"]


def test_a_row_that_is_left_out_is_counted(tmp_path):
    finding = data(tmp_path / "train.jsonl", row(), "{", row(), on_bad_row="skip")
    assert (finding.verdict, finding.detail.endswith("2 rows (1 left out)")) == ("ok", True)


def test_a_bad_row_is_a_problem_that_names_its_line(tmp_path):
    finding = data(tmp_path / "train.jsonl", row(), '{"instruction": "x"}')
    assert finding.verdict == "problem"
    assert "train.jsonl, line 2: no column 'context'" in finding.detail
    assert "data.on_bad_row=skip" in finding.fix


def test_a_file_that_is_missing_is_a_problem(tmp_path):
    config = DataConfig(train=tmp_path / "none.jsonl")
    finding = guarded("data", lambda: check_data(config))
    assert finding.verdict == "problem"
    assert "none.jsonl does not exist" in finding.detail
    assert "data.train" in finding.fix


def test_models_that_are_made_or_complete_are_ok(tmp_path):
    finding = models(None, model(tmp_path / "m"))
    assert finding.verdict == "ok"
    assert (
        finding.detail == f"teacher: made by the run; student: {tmp_path / 'm'}, 0.005 M parameters"
    )


def test_a_model_folder_without_weights_is_a_problem(tmp_path):
    folder = Path(model(tmp_path / "m"))
    (folder / "model.safetensors").unlink()
    finding = models(str(folder))
    assert finding.verdict == "problem"
    assert "holds no weights" in finding.detail


def test_damaged_weights_and_a_folder_that_is_not_there_are_problems(tmp_path):
    folder = Path(model(tmp_path / "m"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    damaged, absent = models(str(folder)), models(str(tmp_path / "none"))
    assert (damaged.verdict, "damaged or cut off" in damaged.detail) == ("problem", True)
    assert (absent.verdict, "none does not exist" in absent.detail) == ("problem", True)


@pytest.mark.parametrize(("offline", "verdict"), [(False, "warning"), (True, "problem")])
def test_hub_models_that_are_not_here_are_named_all(offline, verdict, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    finding = models("some/teacher", "student", offline=offline)
    assert finding.verdict == verdict
    assert finding.detail.endswith("some/teacher, student")


def test_one_tokenizer_in_two_folders_is_ok(tmp_path):
    finding = tokenizers(model(tmp_path / "t"), model(tmp_path / "s"))
    assert finding.verdict == "ok"
    assert "the same for teacher and student" in finding.detail


def test_different_tokenizers_are_a_problem(tmp_path):
    other = model(tmp_path / "s", texts="other texts altogether, other merges")
    finding = tokenizers(model(tmp_path / "t"), other)
    assert finding.verdict == "problem"
    assert "different tokenizers" in finding.detail


def test_tokenizers_of_hub_models_are_not_downloaded_to_compare_them(tmp_path):
    finding = tokenizers("some/teacher", model(tmp_path / "s"))
    assert finding.verdict == "warning"
    assert finding.detail == "not compared: no folder of this machine is some/teacher"


def test_made_models_have_one_tokenizer():
    assert check_tokenizers(load("quickstart")).verdict == "ok"


def test_a_run_writes_into_its_folder_the_cache_and_checkpoints(tmp_path):
    config = load("quickstart", ["output=out", "cache=/c", "name=n"])
    assert places_of(config, tmp_path) == {
        "run folder": tmp_path / "out" / "n",
        "cache": Path("/c"),
        "checkpoints": tmp_path / "out" / "n" / "checkpoints",
    }
    elsewhere = load("quickstart", ["checkpoint.folder=/k"])
    assert places_of(elsewhere, tmp_path)["checkpoints"] == Path("/k/quickstart")
    assert "checkpoints" not in places_of(load("quickstart", ["checkpoint.every=0"]), tmp_path)


def test_an_output_that_would_vanish_with_its_job_is_an_error(tmp_path):
    here = tmp_path / "_ray_pkg_0"
    here.mkdir()
    for key in ("output", "cache", "checkpoint.folder"):
        with pytest.raises(ConfigError, match=f"^{key}=.*throw-away"):
            places_of(load("quickstart", [f"{key}={here}/runs"]), here)


def test_folders_that_may_be_written_are_ok_and_not_made(tmp_path):
    finding = check_folders({"run folder": tmp_path / "a" / "b", "cache": tmp_path})
    assert finding.verdict == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_and_a_folder_that_takes_no_files_are_problems(tmp_path):
    (tmp_path / "file").touch()
    finding = check_folders({"run folder": tmp_path / "file" / "run"})
    assert (finding.verdict, "output=FOLDER" in finding.fix) == ("problem", True)
    finding = check_folders({"cache": Path("/proc/dpkd")})
    assert (finding.verdict, "cache=FOLDER" in finding.fix) == ("problem", True)


def test_an_earlier_run_of_the_name_is_told_as_it_stands(tmp_path):
    run = tmp_path / "run"
    assert check_earlier_run(run, resumes=False).detail == "none of this name"
    run.mkdir()
    (run / "status.json").write_text('{"state": "failed", "step": 3}')
    finding = check_earlier_run(run, resumes=False)
    assert (finding.verdict, finding.detail) == ("ok", f"{run}: failed at step 3")
    with RunLock(run) as lock:
        identity = json.loads(lock.path.read_text())
        finding = check_earlier_run(run, resumes=True)
        assert (finding.verdict, "belongs to a run that goes on" in finding.detail) == (
            "problem",
            True,
        )
    (run / "status.json").write_text('{"state": "running", "step": 3}')
    lock.path.write_text(json.dumps(identity | {"boot": "another"}))
    finding = check_earlier_run(run, resumes=False)
    assert (finding.verdict, finding.detail) == ("warning", f"{run}: crashed at step 3")
    assert "resume=auto" in finding.fix
    assert check_earlier_run(run, resumes=True).verdict == "ok"


def test_what_goes_to_one_disk_is_added_up(tmp_path):
    places = {"run folder": tmp_path / "a", "cache": tmp_path / "b"}
    assert check_disk(places, {"run folder": 1.0, "cache": 1.0}).verdict == "ok"
    finding = check_disk(places, {"run folder": 1.0, "cache": 1e6 * GIB})
    assert finding.verdict == "problem"
    assert "run folder and cache" in finding.detail
    assert "output and cache" in finding.fix


def test_a_disk_that_is_nearly_full_keeps_ray_from_making_objects(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestration.checkups_places.NEARLY_FULL", 1.0)
    assert check_temporary_files(tmp_path / "ray").verdict == "ok"
    monkeypatch.setattr("orchestration.checkups_places.NEARLY_FULL", -1.0)
    assert check_temporary_files(tmp_path / "ray").verdict == "warning"


def test_ray_s_files_are_where_its_variables_say():
    assert ray_folder({}) == Path("/tmp/ray")
    assert ray_folder({"TMPDIR": "/b"}) == Path("/b/ray")
    assert ray_folder({"TMPDIR": "/b", "RAY_TMPDIR": "/a"}) == Path("/a/ray")


def test_a_place_that_is_not_there_yet_is_judged_by_what_is_above_it(tmp_path):
    assert existing_part(tmp_path / "x" / "y") == tmp_path
