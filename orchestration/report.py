"""`python -m orchestration.report RUN [RUN ...]`: one self-contained HTML file on runs.

A run writes its own, `RUN/report.html`, when it ends, well or not.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DpkdError
from orchestration.command import natural
from orchestration.report_page import Pictures, page
from orchestration.report_pictures import pictures_of
from orchestration.report_story import Story, read_story

REPORT_NAME = "report.html"
PAIRS = 2
"""Pairs of a run that are shown token by token, unless told otherwise."""
_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        stories = _stories(options.runs)
        alone = len(stories) == 1
        out = options.out or (options.runs[0] if alone else Path()) / REPORT_NAME
        write(stories, out, pairs=options.pairs)
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(f"wrote {out}")  # noqa: T201
    return 0


def write(stories: Sequence[Story], out: Path, *, pairs: int) -> None:
    """Write the report on ``stories``, with the tokens of ``pairs`` pairs of each.

    Raises ConfigError where ``out`` cannot be written.
    """
    pictures = {story.name: pictures_of(story, pairs) if pairs else Pictures() for story in stories}
    text = page(stories, pictures)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = out.with_name(f".{out.name}.new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(out)
    except OSError as error:
        raise ConfigError(
            f"the report {out} cannot be written ({error.strerror}); give another file by --out"
        ) from None


def write_at_the_end(folder: Path) -> Path | None:
    """Write a run's own report; None, and a line in the log, where that fails.

    A run that is over is never failed by what is told of it.
    """
    out = folder / REPORT_NAME
    try:
        write([read_story(folder)], out, pairs=PAIRS)
    except Exception:  # noqa: BLE001
        _LOG.warning("the report of %s could not be written", folder, exc_info=True)
        return None
    return out


def _stories(folders: Sequence[Path]) -> list[Story]:
    stories = [read_story(folder.resolve()) for folder in folders]
    names = [story.name for story in stories]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two runs are called {twice[0]!r}: give each run once, and rename one")
    return stories


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.report",
        description="Write one self-contained HTML file on a run, or on several over each other.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, help="file to write (default: RUN/report.html)")
    parser.add_argument(
        "--pairs",
        type=natural,
        default=PAIRS,
        help=f"pairs shown token by token (default: {PAIRS}; 0: none)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
