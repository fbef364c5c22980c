"""What a beginner gets wrong, through the real command: one sentence, the right exit code, and
nothing heavy started.

Every kind of malformed input, with its sentence, is in ``test_malformed_input.py``.
"""

import json
import os
from pathlib import Path

import pytest

from actors.tokenizer import train_tokenizer
from configs.load import load
from configs.models import MakeModel
from learner.make_model import make_model
from orchestration import run_lock
from orchestration.run import main
from orchestration.run_lock import RunLock


def _data(folder: Path, *, rows: int = 40) -> Path:
    path = folder / "rows.jsonl"
    lines = [
        {"instruction": "Say it.", "context": f"{i} word", "response": f"said {i}"}
        for i in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _model(folder: Path, *, texts: str = "say it word said") -> Path:
    tokenizer = train_tokenizer([texts], 300, folder)
    sizes = MakeModel(hidden_size=32, layers=1, heads=1, context=64)
    make_model(sizes, vocab_size=len(tokenizer), eos_token_id=0, seed=0, folder=folder)
    return folder


def _run(capsys: pytest.CaptureFixture[str], home: Path, *overrides: str) -> tuple[int, str]:
    code = main(
        [
            "quickstart",
            "name=bad",
            f"output={home / 'runs'}",
            f"cache={home / 'cache'}",
            "monitoring.port=0",
            "data.validation_rows=4",
            *overrides,
        ]
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    return code, error


def _models(student: Path, teacher: Path) -> list[str]:
    return [
        *(f"student.model={student}", "student.make=null", "student.warm_start=null"),
        *(f"teacher.model={teacher}", "teacher.make=null", "teacher.warm_start=null"),
        "student.sampling.max_new_tokens=8",
        "teacher.sampling.max_new_tokens=8",
    ]


def test_a_bad_row_is_named_by_file_and_line(tmp_path, capsys):
    path = _data(tmp_path)
    path.write_text(path.read_text() + '{"instruction": "x"\n')
    code, error = _run(capsys, tmp_path, f"data.train={path}")
    assert code == 4
    assert "rows.jsonl, line 41" in error
    assert "data.on_bad_row=skip" in error


def test_a_model_folder_without_weights(tmp_path, capsys):
    student = _model(tmp_path / "student")
    (student / "model.safetensors").unlink()
    overrides = _models(student, student)
    code, error = _run(capsys, tmp_path, f"data.train={_data(tmp_path)}", *overrides)
    assert code == 3
    assert f"{student} holds no weights" in error


def test_teacher_and_student_with_different_tokenizers(tmp_path, capsys):
    student = _model(tmp_path / "student")
    teacher = _model(tmp_path / "teacher", texts="other texts altogether, other merges")
    overrides = _models(student, teacher)
    code, error = _run(capsys, tmp_path, f"data.train={_data(tmp_path)}", *overrides)
    assert code == 2
    assert "tokenizer" in error


def test_a_cache_and_an_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    code, error = _run(capsys, tmp_path, f"cache={tmp_path / 'file' / 'cache'}")
    assert code == 2
    assert "cache=FOLDER" in error
    code, error = _run(capsys, tmp_path, f"output={tmp_path / 'file'}")
    assert code == 2
    assert "set name or output" in error


def test_the_folder_of_a_run_that_goes_on_is_left_alone(tmp_path, capsys):
    with RunLock(tmp_path / "runs" / "bad"):
        code, error = _run(capsys, tmp_path, f"data.train={_data(tmp_path)}")
    assert code == 2
    assert f"belongs to a run that goes on (process {os.getpid()} on " in error


def test_a_retry_is_not_lost_to_the_lock_of_a_head_that_is_gone(tmp_path, capsys, monkeypatch):
    """With resume=auto it waits until the lock is silent; and the run before is told as killed."""
    monkeypatch.setattr(run_lock, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.1)
    run = tmp_path / "runs" / "bad"
    run.mkdir(parents=True)
    (run / "status.json").write_text('{"state": "running", "step": 9}')
    with RunLock(run) as lock:
        identity = json.loads(lock.path.read_text())
    held = json.dumps(identity | {"host": "lost-head", "pid": 7})
    lock.path.write_text(held)
    code, error = _run(capsys, tmp_path, f"data.train={_data(tmp_path)}")
    assert (code, "process 7 on lost-head" in error) == (2, True), "at once without resume=auto"
    lock.path.write_text(held)
    code, error = _run(capsys, tmp_path, f"data.train={tmp_path / 'none.jsonl'}", "resume=auto")
    assert (code, "none.jsonl" in error) == (4, True), "it got beyond the lock"


def test_nothing_of_a_submitted_job_is_left_in_its_throw_away_copy(tmp_path, capsys, monkeypatch):
    copy, home = tmp_path / "_ray_pkg_0123", tmp_path / "home"
    copy.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(copy)
    folders = ("output=runs", "cache=kept", "checkpoint.folder=saved")
    code, _ = _run(capsys, tmp_path, *folders, f"data.train={tmp_path / 'none.jsonl'}")
    assert (code, list(copy.iterdir())) == (4, [])
    assert (home / "dpkd" / "kept").is_dir()
    kept = load(str(home / "dpkd" / "runs" / "bad" / "config.yaml"))
    assert kept.checkpoint.folder == home / "dpkd" / "saved"


def test_a_failed_run_says_so_in_its_status(tmp_path, capsys):
    _run(capsys, tmp_path, f"data.train={tmp_path / 'none.jsonl'}")
    status = json.loads((tmp_path / "runs" / "bad" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 4)
    assert "none.jsonl" in status["reason"]
