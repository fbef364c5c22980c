"""Command lines of manifests and documents, read by the commands' own parsers."""

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import ConfigError

_FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"python -m (orchestration\.\w+ ?.*)")


def command_of(line: str) -> tuple[str, list[str]]:
    """Module and words of a command line; the module is whatever stands in its place."""
    first, *words = shlex.split(line, comments=True)
    if [first, *words[:1]] != ["python", "-m"]:
        return " ".join([first, *words[:2]]), words
    return words[1], words[2:]


def parsed(module: str, words: list[str]) -> Any:
    """What the parser of the command makes of ``words``. Raises ConfigError where it refuses."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return importlib.import_module(module)._parse(words)
    except SystemExit:
        raise ConfigError(said.getvalue().strip().splitlines()[-1]) from None


def told_to_type(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Every command of ours in a document's blocks: module and words.

    What stands in brackets may be left out, so it is to be taken, too.
    """
    for block in _FENCE.findall(document.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if found := _OURS.search(line):
                plain = found[1].replace("[key=value ...]", "seed=1")
                yield command_of("python -m " + plain.replace("[", "").replace("]", ""))
