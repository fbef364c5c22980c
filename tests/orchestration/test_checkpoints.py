"""Checkpoints on disk: what is there after a success, a failure, a crash and a decay."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import faults
from configs.errors import CheckpointError, DataError
from orchestration.checkpoints import Checkpoints, checkpoint_folder, open_checkpoint
from tests.builders import run_config

FACTS = {"data": ["abc", 7]}


async def fill(folder: Path) -> None:
    (folder / "engine").mkdir()
    (folder / "engine" / "weights.bin").write_bytes(b"weights " * 100)
    (folder / "engine" / "empty.bin").touch()


async def fill_a_full_disk(folder: Path) -> None:
    await fill(folder)
    raise OSError(28, "No space left on device")


def write(home: Checkpoints, step: int, filler=fill) -> Path:
    return asyncio.run(home.write(step, filler, state={"step": step, "of": "me"}, facts=FACTS))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    home = Checkpoints(tmp_path / "checkpoints", keep=2)
    path = write(home, 40)
    assert path == tmp_path / "checkpoints" / "step-00000040"
    found = open_checkpoint(path)
    assert (found.path, found.step, found.facts) == (path, 40, FACTS)
    assert found.state == {"step": 40, "of": "me"}
    assert (path / "engine" / "weights.bin").read_bytes() == b"weights " * 100
    assert (home.folder / "LATEST").read_text() == "step-00000040\n"


def test_the_manifest_lists_every_file_with_size_and_digest(tmp_path):
    path = write(Checkpoints(tmp_path, keep=1), 3)
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["facts"]) == (1, 3, FACTS)
    assert sorted(manifest["files"]) == ["engine/empty.bin", "engine/weights.bin", "state.json"]
    assert manifest["files"]["engine/weights.bin"]["bytes"] == 800
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert manifest["files"]["engine/empty.bin"] == {"bytes": 0, "sha256": empty}


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    flushed: list[str] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append(path.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(os, "fsync", fsync)
    write(Checkpoints(tmp_path / "home", keep=1), 3)
    at = flushed.index
    draft = "home/step-00000003.tmp"
    for name in ("engine/weights.bin", "engine/empty.bin", "engine", "state.json"):
        assert at(f"{draft}/{name}") < at(f"{draft}/manifest.json")
    assert at(f"{draft}/manifest.json") < len(flushed) - 1 - flushed[::-1].index(draft) < at("home")
    assert flushed[at("home") :] == ["home", "home/.LATEST.tmp", "home"]


def test_the_newest_few_are_kept(tmp_path):
    home = Checkpoints(tmp_path, keep=2)
    for step in (2, 4, 10, 100):
        write(home, step)
    assert names(tmp_path) == ["LATEST", "step-00000010", "step-00000100"]
    assert [path.name for path in home.newest_first()] == ["step-00000100", "step-00000010"]


def test_a_step_that_is_made_again_replaces_its_checkpoint(tmp_path):
    home = Checkpoints(tmp_path, keep=2)
    write(home, 2)

    async def other(folder: Path) -> None:
        (folder / "other.bin").write_bytes(b"other")

    path = write(home, 2, other)
    assert names(path) == ["manifest.json", "other.bin", "state.json"]
    open_checkpoint(path)


def test_checkpoints_of_later_steps_go_with_the_life_that_was_undone(tmp_path):
    home = Checkpoints(tmp_path, keep=1)
    write(home, 8)
    shutil.copytree(tmp_path / "step-00000008", tmp_path / "step-00000004")
    home.forget_after(4)
    assert names(tmp_path) == ["LATEST", "step-00000004"]
    assert (tmp_path / "LATEST").read_text() == "step-00000004\n"


def test_a_new_checkpoint_is_never_the_one_that_is_removed_as_old(tmp_path):
    home = Checkpoints(tmp_path, keep=1)
    write(home, 8)
    write(home, 6)
    assert names(tmp_path) == ["LATEST", "step-00000006"]


def test_a_full_disk_leaves_the_one_before_and_nothing_half_done(tmp_path):
    home = Checkpoints(tmp_path, keep=2)
    write(home, 2)
    with pytest.raises(CheckpointError, match=r"step 4 .*No space left.*the one before is as it"):
        write(home, 4, fill_a_full_disk)
    assert names(tmp_path) == ["LATEST", "step-00000002"]
    assert open_checkpoint(tmp_path / "step-00000002").step == 2


@pytest.mark.parametrize(
    "point", [point for point in faults.POINTS if point.startswith("driver.checkpoint_")]
)
def test_an_error_at_any_point_leaves_a_sound_one_and_nothing_half_done(
    tmp_path, monkeypatch, point
):
    home = Checkpoints(tmp_path, keep=2)
    write(home, 2)
    armed = faults.parse_faults(f"{point.replace('.', ':')}:1:raise")
    monkeypatch.setattr(faults, "_ARMED", armed)
    with pytest.raises(CheckpointError, match="injected"):
        write(home, 4)
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    newest = home.newest_sound(lambda _: pytest.fail("nothing is damaged"))
    assert newest and newest.step in (2, 4)
    monkeypatch.undo()
    write(home, 6)
    assert (tmp_path / "LATEST").read_text() == "step-00000006\n"


def test_what_a_crash_left_is_no_checkpoint_and_is_removed_by_the_next(tmp_path):
    home = Checkpoints(tmp_path, keep=2)
    write(home, 2)
    (tmp_path / "step-00000004.tmp" / "engine").mkdir(parents=True)
    (tmp_path / "step-00000004.tmp" / "engine" / "half.bin").write_bytes(b"half")
    assert [path.name for path in home.newest_first()] == ["step-00000002"]
    write(home, 6)
    assert names(tmp_path) == ["LATEST", "step-00000002", "step-00000006"]


def test_a_state_that_is_not_json_leaves_nothing_half_done(tmp_path):
    home = Checkpoints(tmp_path, keep=2)
    with pytest.raises(ValueError, match="not JSON compliant"):
        asyncio.run(home.write(1, fill, state={"loss": float("nan")}, facts=FACTS))
    assert names(tmp_path) == []


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _other_format(path: Path) -> None:
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": 2}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped byte": (lambda p: _flip(p / "engine/weights.bin"), "weights.bin is damaged"),
    "a truncated file": (
        lambda p: os.truncate(p / "engine/weights.bin", 799),
        "engine/weights.bin has 799 bytes of 800",
    ),
    "a missing file": (lambda p: (p / "engine/empty.bin").unlink(), "empty.bin is missing"),
    "a file too many": (
        lambda p: (p / "engine/more.bin").touch(),
        "engine/more.bin is not in manifest.json",
    ),
    "an edited state": (lambda p: _flip(p / "state.json"), "state.json is damaged"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
    "a torn manifest": (
        lambda p: os.truncate(p / "manifest.json", 30),
        "manifest.json cannot be read",
    ),
    "another format": (lambda p: _other_format(p / "manifest.json"), "format 2, and this version"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over_loudly(tmp_path, damage, said):
    home = Checkpoints(tmp_path, keep=2)
    write(home, 2)
    damage(write(home, 4))
    heard: list[str] = []
    newest = home.newest_sound(heard.append)
    assert newest and newest.step == 2
    assert len(heard) == 1
    assert str(tmp_path / "step-00000004") in heard[0] and said in heard[0]
    assert heard[0].endswith("; trying the one before")
    assert names(tmp_path) == ["LATEST", "step-00000002", "step-00000004"], "evidence was removed"


def test_where_all_are_damaged_a_run_does_not_begin_from_nothing(tmp_path):
    home = Checkpoints(tmp_path, keep=2)
    for step in (2, 4):
        _flip(write(home, step) / "state.json")
    heard: list[str] = []
    with pytest.raises(DataError, match=r"none of the 2 checkpoints in .* is sound"):
        home.newest_sound(heard.append)
    assert len(heard) == 2


def test_where_none_was_made_there_is_none(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        home = Checkpoints(folder, keep=2)
        assert home.newest_sound(lambda _: pytest.fail("nothing is damaged")) is None


def test_they_lie_in_the_run_folder_unless_told_otherwise(tmp_path):
    assert checkpoint_folder(run_config(), tmp_path) == tmp_path / "checkpoints"
    elsewhere = run_config(name="mine", checkpoint={"folder": tmp_path / "big"})
    assert checkpoint_folder(elsewhere, tmp_path / "mine") == tmp_path / "big" / "mine"
