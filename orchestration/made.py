"""Things that a recipe makes once: named by what determines them, and put in place whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPE_VERSION = 2
"""Raised when the code changes what the same settings make: old cache entries are then stale."""


def key_of(recipe: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits over everything that determines a made thing."""
    text = json.dumps({**recipe, "v": RECIPE_VERSION}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def content_digest(path: Path) -> str:
    """Return a digest of a file's bytes; empty where there is no file, which its reader reports."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def draft_of(home: Path) -> Path:
    """Return where ``home``'s content is made before it is published."""
    return home.with_name(f".{home.name}.draft-{os.getpid()}")


def publish(made: Path, home: Path) -> None:
    """Copy a finished folder to where the next run finds it, whole or not at all.

    A draft is removed afterwards. Another run that was quicker made the same thing.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    staged = home.with_name(f".{home.name}.staged-{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(made, staged)
    try:
        staged.rename(home)
    except OSError:
        shutil.rmtree(staged)
        if not home.exists():
            raise
    if made == draft_of(home):
        shutil.rmtree(made)
