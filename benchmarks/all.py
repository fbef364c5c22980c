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
MODULES: dict[str, list[str]] = {
    "loop_vs_trl": ["tiny", "small"],
    "sampler": [],
    "kept_full": [],
    "learner_step": [],
    "loss_memory": [],
    "prompt_sharing": [],
    "push": [],
    "push_pause": [],
    "fan_out": [],
    "overlap": [],
    "queue_rate": [],
    "memory_growth": [],
    "big_data": [],
}
"""What is run, and the cases of those that have several."""


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
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    cases = [[case] for case in MODULES[name]] or [[]]
    runs = [subprocess.run([*command, *case], cwd=ROOT, check=False) for case in cases]
    return max(run.returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
