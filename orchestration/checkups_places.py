"""Where a run writes: whether it may, and whether there is room."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from configs.run import RunConfig
from orchestration.checkpoints import checkpoint_folder
from orchestration.checkups import Finding, gib
from orchestration.run_folder import with_places
from orchestration.run_lock import holder_of
from orchestration.run_state import read_status, state_of

NEARLY_FULL = 0.95
"""Ray creates no object that would go to a disk fuller than this (its default)."""
SETTINGS = {"run folder": "output", "cache": "cache", "checkpoints": "checkpoint.folder"}
"""The key that says where each place is."""


def places_of(config: RunConfig, here: Path) -> dict[str, Path]:
    """Return the folders that a run writes into; ``here`` is the current directory.

    Raises ConfigError for one that would vanish with the job.
    """
    config = with_places(config, here)
    run = config.output / config.name
    places = {"run folder": run, "cache": config.cache}
    if config.checkpoint.every:
        places["checkpoints"] = checkpoint_folder(config, run)
    return places


def check_earlier_run(folder: Path, *, resumes: bool) -> Finding:
    """See what holds the run folder's name: a run that goes on, or one that was killed."""
    name, holder, status = "earlier run", holder_of(folder), read_status(folder)
    if holder and holder.is_alive:
        detail = f"{folder} belongs to a run that goes on ({holder})"
        return Finding(name, "problem", detail, "set name=ANOTHER, or stop it first")
    if status is None:
        return Finding(name, "ok", "none of this name")
    seen = f"{folder}: {state_of(folder, status)} at step {status.get('step')}"
    if state_of(folder, status) == "crashed" and not resumes:
        fix = "set resume=auto to go on from its newest checkpoint; else a run of this name begins"
        return Finding(name, "warning", seen, fix)
    return Finding(name, "ok", seen)


def check_folders(places: Mapping[str, Path]) -> Finding:
    """See that files may be made in each place, or where it will be made; leaves nothing there."""
    for name, folder in places.items():
        existing = existing_part(folder)
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            detail = f"the {name} {folder} cannot be written ({existing}: {error.strerror})"
            fix = f"set {SETTINGS[name]}=FOLDER to one that you may write"
            return Finding("folders", "problem", detail, fix)
    shown = ", ".join(f"{name} {folder}" for name, folder in places.items())
    return Finding("folders", "ok", f"may be written: {shown}")


def check_disk(places: Mapping[str, Path], needs: Mapping[str, float]) -> Finding:
    """Hold the free space of each disk against what is written there, in bytes."""
    disks: dict[int, list[str]] = {}
    for name, folder in places.items():
        disks.setdefault(existing_part(folder).stat().st_dev, []).append(name)
    seen = []
    for names in disks.values():
        need = sum(needs[name] for name in names)
        free = shutil.disk_usage(existing_part(places[names[0]])).free
        what = " and ".join(names)
        seen.append(f"{gib(free)} free for {what}, about {gib(need)} wanted (without downloads)")
        if free < need:
            keys = " and ".join(SETTINGS[name] for name in names)
            fix = f"make room, or set {keys} to folders on a larger disk"
            return Finding("disk", "problem", seen[-1], fix)
    return Finding("disk", "ok", "; ".join(seen))


def check_temporary_files(folder: Path) -> Finding:
    """See that the disk of Ray's temporary files is not nearly full."""
    usage = shutil.disk_usage(existing_part(folder))
    share = 1 - usage.free / usage.total
    seen = f"the disk of {folder}, for Ray's files, is {share:.0%} full"
    if share > NEARLY_FULL:
        fix = "make room there, or name another folder in RAY_TMPDIR"
        return Finding("temporary files", "warning", seen, fix)
    return Finding("temporary files", "ok", seen)


def ray_folder(environ: Mapping[str, str]) -> Path:
    """Return where Ray of this machine keeps its logs, sockets and objects that do not fit."""
    return Path(environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp") / "ray"


def existing_part(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(up for up in (folder, *folder.parents) if os.path.lexists(up))
