"""Folders are replaced whole or not at all, and a checkpoint cannot run code."""

import pickle
from pathlib import Path

import pytest
import torch

from learner.checkpoint import SafeCheckpointEngine, replace_folder


class Intruder:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with replace_folder(folder) as staging:
            (staging / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replace_folder(folder) as staging:
        (staging / "good").touch()
    with pytest.raises(OSError, match="disk full"), replace_folder(folder) as staging:
        (staging / "half").touch()
        raise OSError("disk full")
    assert [path.name for path in folder.iterdir()] == ["good"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_that_carries_code_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Intruder(tmp_path / "touched")}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        SafeCheckpointEngine(None, []).load(str(tmp_path / "state.pt"))
    assert not (tmp_path / "touched").exists()
