"""`python -m orchestration.plan RECIPE`: what a run will take, and what would balance it.

Costs of single calls come from a short calibration on this machine, from an earlier one, or from a
file; the real pipeline then runs over simulated parts (``orchestration.simulation``).
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DependencyError, DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.balance import APART
from orchestration.checkups_machine import this_machine
from orchestration.command import parse_recipe
from orchestration.costs import Costs
from orchestration.costs_file import check_place, read_costs, write_costs
from orchestration.plan_page import Plan, say_plan, say_scale
from orchestration.say import say
from orchestration.scaling import scaled
from orchestration.simulation import require_balance, simulate

SAMPLERS = (1, 8, 64, 512, 1000)
ROUNDS = 2
"""Of a calibration: runs vary, on the quietest machine."""
EPILOG = """\
costs, in seconds, as --costs takes them (JSON or YAML): generate, respond, judge and learn as a
number a prompt or as [fixed, each]; latency, from a call to its beginning, a number or by method;
publish, probe, load, driver (a call), step and queue as numbers; all_reduce, one copy of the
gradients from a learner rank to the next; crowding, the share of its speed that a core loses when
all of its machine work; weight_bytes and bandwidth (bytes a second), where samplers are on other
machines.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; returns the process's exit code."""
    options, recipe, overrides = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.save and options.costs:
            raise ConfigError("--save keeps what a calibration finds, and --costs makes none")
        if options.rounds and options.costs:
            raise ConfigError("--rounds is of a calibration, and --costs makes none")
        if options.cores and options.apart:
            raise ConfigError("--cores says how many all parts share, --apart that they share none")
        config = load(recipe, overrides)
        require_balance(config)
        costs = _costs(config, options)
        cores = APART if options.apart else options.cores or this_machine().usable_cores
        plan = Plan(config=config, costs=costs, forecast=simulate(config, costs, cores=cores))
        say_plan(plan)
        if options.scale:
            say_scale(plan, scaled(config, costs, SAMPLERS))
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _costs(config: RunConfig, options: argparse.Namespace) -> Costs:
    if options.costs:
        return read_costs(options.costs)
    from orchestration.calibration import calibrate  # starts runs

    if options.save:
        check_place(options.save)  # better to fail now than after the runs
    folder = Path(tempfile.mkdtemp(prefix="dpkd-plan-"))
    cores = this_machine().usable_cores
    try:
        costs = calibrate(config, folder, say, cores=cores, rounds=options.rounds or ROUNDS)
    except DependencyError:
        raise  # the log of the run that failed is there to be read
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    if options.save:
        write_costs(options.save, costs)
        say(f"costs kept in {options.save}: --costs {options.save} plans with them again")
    return costs


def _number_of_cores(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (value := float(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"a number above 0 is needed, not {text!r}")


def _rounds(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, not {text!r}")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, str | None, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.plan",
        description="Say what a run will take, which part holds it up, and what would balance it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--costs", type=Path, help="file of costs, instead of a calibration here")
    parser.add_argument("--save", type=Path, help="keep what the calibration found in this file")
    parser.add_argument(
        "--rounds", type=_rounds, help=f"make the calibration's runs so often (default: {ROUNDS})"
    )
    parser.add_argument(
        "--cores", type=_number_of_cores, help="cores that all parts share (default: these)"
    )
    parser.add_argument(
        "--apart", action="store_true", help="every part has a core or GPU of its own"
    )
    parser.add_argument("--scale", action="store_true", help="also simulate 1 to 1000 samplers")
    return parse_recipe(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
