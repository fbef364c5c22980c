"""Every figure, one after the other, and then the table: what `make bench` runs.

    python -m benchmarks.all [MODULE ...]     # those named, else all

Each module runs in a process of its own, and says what it measures in its docstring. A figure that
misses its bar does not keep the others from being taken; the exit code says so at the end.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks import table

ROOT = Path(__file__).parents[1]
MODULES = {
    "loop_vs_trl": ["tiny"],
    "sampler": [],
    "learner_step": [],
    "loss_memory": [],
    "prompt_sharing": [],
    "push": [],
    "push_pause": [],
    "overlap": [],
    "queue_rate": [],
    "memory_growth": [],
    "big_data": [],
}
"""What is run, with its arguments."""


def main() -> int:
    """Run them; returns 1 where one failed or missed its bar."""
    wanted = sys.argv[1:] or list(MODULES)
    if unknown := sorted(set(wanted) - set(MODULES)):
        print(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(MODULES)}")
        return 2
    missed = [name for name in wanted if _run(name)]
    table.write()
    if missed:
        print(f"failed, or above or below its bar: {', '.join(missed)}")
    return int(bool(missed))


def _run(name: str) -> int:
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *MODULES[name]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
