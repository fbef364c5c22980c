"""Runs recipes one after another in this process, each small.

`python -m tests.recipes.in_one_process HOME RECIPE ...`. Importing vLLM and DeepSpeed afresh for
every recipe would take most of a test's time.
"""

import sys
import traceback
from pathlib import Path

from configs.load import load
from orchestration.job import run_job
from tests.e2e.tiny import TINY

SMALL = ("learner.steps=3", "cluster.local=true", "evaluation.samples=1")


def run_all(home: Path, recipes: list[str]) -> None:
    """Leave `HOME/runs/<recipe>/`, and `HOME/<recipe>.error` where one failed."""
    for recipe in recipes:
        overrides = [*TINY, *SMALL, f"output={home / 'runs'}", f"cache={home / 'cache'}"]
        try:
            run_job(load(recipe, overrides))
        except Exception:  # noqa: BLE001  the tests report it, and the others go on
            (home / f"{recipe}.error").write_text(traceback.format_exc())


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), sys.argv[2:])
