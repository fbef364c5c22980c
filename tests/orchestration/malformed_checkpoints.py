"""Checkpoints that are not what they claim, each with the sentence that answers it.

``{path}`` is the checkpoint's folder, ``{run}`` the run's.
"""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from configs.run import RunConfig
from configs.wire import Uid
from orchestration.checkpoints import Checkpoints
from orchestration.ledger import Ledger

CONTENT = b"parameters " * 50


class Damage(NamedTuple):
    """Something done to the only checkpoint of a run, and what a resume says of it."""

    what: str
    do: Callable[[Path], object]
    said: str


def run_with_a_checkpoint(root: Path) -> tuple[RunConfig, Path]:
    """Make ``root/run`` as a run leaves it after step 4; returns its resume, and the checkpoint."""
    config = RunConfig.model_validate(
        {
            "name": "run",
            "output": str(root),
            "student": {"model": "s"},
            "teacher": {"model": "t"},
            "resume": "auto",
        }
    )
    run = root / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    with Ledger(run / "events.jsonl") as ledger:
        ledger.issued([Uid(0, 0, 0)])
        ledger.consumed(1, [Uid(0, 0, 0)])
        mark = ledger.mark()

    async def fill(folder: Path) -> None:
        (folder / "engine").mkdir()
        (folder / "engine" / "model.pt").write_bytes(CONTENT)

    home = Checkpoints(run / "checkpoints", keep=2)
    return config, asyncio.run(home.write(4, fill, state={"step": 4, **mark}, facts={}))


def _with(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)


def _manifest(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    _with(path, "manifest.json", json.dumps({**manifest, **changes}).encode())


def _without_key(path: Path, key: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest[key]
    _with(path, "manifest.json", json.dumps(manifest).encode())


ENGINE = "engine/model.pt"
DAMAGES = (
    Damage("no manifest", lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
    Damage(
        "a torn manifest",
        lambda p: _with(p, "manifest.json", b'{"format": 1, "st'),
        "manifest.json cannot be read (Unterminated string starting at: line 1 column 15 (char",
    ),
    Damage(
        "a manifest that is a list",
        lambda p: _with(p, "manifest.json", b"[]"),
        "manifest.json holds no object",
    ),
    Damage(
        "a manifest without a list of files",
        lambda p: _without_key(p, "files"),
        "manifest.json lacks 'files'",
    ),
    Damage(
        "a later version's",
        lambda p: _manifest(p, format=2),
        "format 2, and this version reads 1; resume with the version that wrote it",
    ),
    Damage("a lost file", lambda p: (p / ENGINE).unlink(), f"{ENGINE} is missing"),
    Damage("a lost folder", lambda p: shutil.rmtree(p / "engine"), f"{ENGINE} is missing"),
    Damage(
        "a truncated file",
        lambda p: _with(p, ENGINE, CONTENT[:-7]),
        f"{ENGINE} has 543 bytes of 550",
    ),
    Damage(
        "a flipped byte",
        lambda p: _with(p, ENGINE, b"P" + CONTENT[1:]),
        f"{ENGINE} is damaged: its sha256 is another",
    ),
    Damage(
        "a state that was edited",
        lambda p: _with(p, "state.json", (p / "state.json").read_bytes().replace(b"4", b"5", 1)),
        "state.json is damaged: its sha256 is another",
    ),
    Damage(
        "a file too many",
        lambda p: _with(p, "engine/more.pt", b"x"),
        "engine/more.pt is not in manifest.json",
    ),
)
