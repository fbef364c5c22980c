"""Checkpoints on disk: whole or not at all, proved by a manifest before they are believed.

    step-00000040.tmp/  ── filled, flushed, manifest.json written ──► step-00000040/
    LATEST              ── replaced by rename, then older ones than the newest ``keep`` are removed

A checkpoint holds the learner's engine state (``engine/``, written by the learner's ranks) and
``state.json`` (the ledger's account, the position, what the summary needs). Whatever happens in
between, there is either the new checkpoint or the one before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import CheckpointError, DataError
from configs.faults import failpoint
from configs.run import RunConfig

MANIFEST = "manifest.json"
STATE = "state.json"
LATEST = "LATEST"
FORMAT = 1
"""Version of the layout; a checkpoint of another one is refused."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One checkpoint whose files are what its manifest says."""

    path: Path
    step: int
    facts: Mapping[str, Any]
    """What must agree with the run that goes on from it: config, fingerprints, ranks."""
    state: Mapping[str, Any]
    """What the driver keeps; see ``orchestration.resume``."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    async def write(
        self,
        step: int,
        fill: Callable[[Path], Awaitable[None]],
        *,
        state: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> Path:
        """Put a checkpoint of ``step`` in place; ``fill`` writes the engine's files to a folder.

        Raises CheckpointError when it cannot be written: then what was there before is untouched
        and nothing half done is left.
        """
        home = self._home(step)
        staging = home.with_name(f"{home.name}.tmp")
        try:
            for left_behind in self.folder.glob("step-*.tmp"):
                shutil.rmtree(left_behind)
            staging.mkdir(parents=True)
            failpoint("driver.checkpoint_begun")
            await fill(staging)
            failpoint("driver.checkpoint_filled")
            _write_json(staging / STATE, state)
            _flush_tree(staging)
            _write_json(staging / MANIFEST, _manifest(staging, step, facts))
            _flush(staging / MANIFEST)
            _flush(staging)
            failpoint("driver.checkpoint_sealed")
            shutil.rmtree(home, ignore_errors=True)  # of a life that was rolled back
            staging.rename(home)
            _flush(self.folder)
            failpoint("driver.checkpoint_renamed")
            self._point_at(home)
            failpoint("driver.checkpoint_done")
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.folder} "
                f"({error.strerror or error}); the one before is as it was; make room, or set "
                "checkpoint.folder"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.forget_after(step)
        for path in self.newest_first()[self._keep :]:
            shutil.rmtree(path, ignore_errors=True)
        return home

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: whoever goes on from ``step`` undoes those."""
        home = self._home(step)
        later = [path for path in self.newest_first() if path.name > home.name]
        if later and home.exists():
            self._point_at(home)
        for path in later:
            shutil.rmtree(path, ignore_errors=True)

    def newest_first(self) -> list[Path]:
        """Return the folders that claim to be checkpoints; unfinished ones make no claim."""
        found = self.folder.glob("step-*") if self.folder.is_dir() else ()
        return sorted((path for path in found if path.suffix != ".tmp"), reverse=True)

    def newest_sound(self, announce: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is what it claims; None where none was ever made.

        A damaged one is announced and passed over. Raises DataError where all are damaged:
        going on from nothing would lose a run in silence.
        """
        paths = self.newest_first()
        for path in paths:
            try:
                return open_checkpoint(path)
            except DataError as error:
                announce(f"{error}; trying the one before")
        if paths:
            raise DataError(
                f"none of the {len(paths)} checkpoints in {self.folder} is sound; restore one from "
                "a backup, or begin afresh with resume=never"
            )
        return None

    def _point_at(self, home: Path) -> None:
        draft = self.folder / f".{LATEST}.tmp"
        draft.write_text(home.name + "\n")
        _flush(draft)
        draft.replace(self.folder / LATEST)
        _flush(self.folder)

    def _home(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def checkpoint_folder(config: RunConfig, run: Path) -> Path:
    """Return where the checkpoints of the run in folder ``run`` are."""
    chosen = config.checkpoint.folder
    return chosen.expanduser().resolve() / config.name if chosen else run / "checkpoints"


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint at ``path``, every file of which was compared with its manifest.

    Raises DataError that names the first file that is missing, damaged or not accounted for.
    """
    manifest = _read_json(path, MANIFEST)
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"checkpoint {path} has format {manifest.get('format')}, and this version reads "
            f"{FORMAT}; resume with the version that wrote it"
        )
    try:
        listed: dict[str, Any] = manifest["files"]
        step, facts = manifest["step"], manifest["facts"]
    except KeyError as error:
        raise DataError(f"checkpoint {path}: {MANIFEST} lacks {error}") from None
    for name, expected in listed.items():
        _compare(path, name, expected)
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        if name != MANIFEST and name not in listed:
            raise DataError(f"checkpoint {path}: {name} is not in {MANIFEST}")
    return Checkpoint(path=path, step=step, facts=facts, state=_read_json(path, STATE))


def _compare(path: Path, name: str, expected: Mapping[str, Any]) -> None:
    file = path / name
    if not file.is_file():
        raise DataError(f"checkpoint {path}: {name} is missing")
    if file.stat().st_size != expected["bytes"]:
        raise DataError(
            f"checkpoint {path}: {name} has {file.stat().st_size} bytes of {expected['bytes']}"
        )
    if _sha256(file) != expected["sha256"]:
        raise DataError(f"checkpoint {path}: {name} is damaged: its sha256 is another")


def _manifest(folder: Path, step: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    files = {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": _sha256(file),
        }
        for file in _files(folder)
    }
    return {"format": FORMAT, "step": step, "facts": facts, "files": files}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"checkpoint {path}: {name} is missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"checkpoint {path}: {name} cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"checkpoint {path}: {name} holds no object")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _flush_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
