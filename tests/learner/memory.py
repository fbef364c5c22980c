"""Measures by how much a call makes a process grow, as the kernel counts it."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PROMPT_RELEASE = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For the environment of a process that is measured: what it frees goes back to the kernel at
once, except small pieces. Without it glibc keeps up to 32 MiB a piece for later."""

PEAK_RESET = Path("/proc/self/clear_refs")
"""Where a 5 makes the kernel's record of the peak start anew."""


class Growth(NamedTuple):
    """Bytes of resident memory beyond what the process held before the call."""

    peak: int
    """At the worst moment of the call."""
    kept: int
    """After it, with its result still held."""


def growth(call: Callable[[], Any]) -> Growth:
    """Run ``call`` and return how it made this process grow (Linux with glibc)."""
    ctypes.CDLL(None).malloc_trim(0)
    PEAK_RESET.write_text("5")
    before = _resident("VmRSS")
    result = call()
    grown = Growth(_resident("VmHWM") - before, _resident("VmRSS") - before)
    del result
    return grown


def _resident(which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10
