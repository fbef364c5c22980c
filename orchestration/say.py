"""What a command prints, whether or not anybody still reads it."""

import os
import sys


def say(text: str) -> None:
    """Print a line at once; a reader that has gone, as ``| head`` does, ends nothing."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        # Else Python would fail once more, on what it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
