"""`python -m orchestration.scale RUN N`: how many samplers a running job shall have.

The wish is a file in the run folder. The job looks at it every few seconds: samplers that are
missing come as the cluster has places for them, those too many leave behind their last call. A run
that goes on later (``resume=auto``) finds the wish where it was; another ``student.replicas`` than
at the time of the wish goes before it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.run_folder import STATUS_NAME, write_json
from orchestration.run_state import read_status, state_of
from orchestration.say import say

WISH_NAME = "samplers.json"


def wanted_samplers(folder: Path, replicas: int) -> int:
    """Return how many samplers the run in ``folder`` shall have.

    As many as its recipe's ``replicas``, unless somebody wished otherwise of that very number.
    """
    try:
        wish = json.loads((folder / WISH_NAME).read_text(encoding="utf-8"))
        return max(1, int(wish["wanted"])) if wish["instead_of"] == replicas else replicas
    except (OSError, ValueError, KeyError, TypeError):
        return replicas


def wish(folder: Path, count: int) -> None:
    """Leave the wish for ``count`` samplers with a running job.

    Raises ConfigError where there is no such run, one that goes on no more, one whose samplers do
    not come and go, or one in whose folder nothing can be written.
    """
    config = _config(folder)
    status = read_status(folder)
    state = state_of(folder, status) if status else f"unknown: its {STATUS_NAME} is damaged"
    if state != "running":
        raise ConfigError(
            f"the run in {folder} is not running ({state}); set student.replicas={count} when it "
            "is started again"
        )
    if reason := _cannot(config, count):
        raise ConfigError(f"the samplers of {folder} stay as they are: {reason}")
    try:
        write_json(folder / WISH_NAME, {"wanted": count, "instead_of": config.student.replicas})
    except OSError as error:
        raise ConfigError(
            f"the wish cannot be left in {folder} ({error.strerror}); give {folder} to whoever "
            "scales, or make room on its disk"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Leave the wish; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        wish(options.run, options.samplers)
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    say(
        f"{options.run} shall have {options.samplers} sampler(s): they join as the cluster has "
        "places for them, and leave behind the step under way; see dpkd_samplers"
    )
    return 0


def _config(folder: Path) -> RunConfig:
    if not (folder / STATUS_NAME).is_file():
        raise ConfigError(
            f"{folder} is no run folder: it has no status.json; give the folder of a run, such as "
            "runs/quickstart"
        )
    return load(str(folder / "config.yaml"))


def _cannot(config: RunConfig, count: int) -> str | None:
    """Say why a run cannot have ``count`` samplers; None: it can."""
    if count < config.supervision.min_samplers:
        least = config.supervision.min_samplers
        return f"supervision.min_samplers is {least}, and {count} are fewer; give {least} or more"
    if not config.learns_from_student:
        return f"objective.type={config.objective.type} draws no student responses"
    if config.cluster.local:
        return "cluster.local runs one actor of each role"
    if config.cluster.sampler.gpus and config.weight_transfer != "object_store":
        return (
            "weights travel by a CUDA transport, which is opened once; start the run with "
            "student.initial_replicas, or student.weight_transfer=object_store"
        )
    if config.deterministic:
        return "deterministic needs one sampler"
    return None


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.scale",
        description="Have samplers join, or leave, a run that goes on.",
        epilog="Exit codes: 0 the wish is left with the run, 2 there is no such run, or it cannot.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a running job")
    parser.add_argument("samplers", type=int, metavar="N", help="samplers that there shall be")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
