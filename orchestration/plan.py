"""`python -m orchestration.plan RECIPE`: what a run will take, and what would balance it.

Costs of single calls come from a short calibration on this machine, from an earlier one, or from a
file; the real pipeline then runs over simulated parts (``orchestration.simulation``).
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.table import Table

from configs.errors import ConfigError, DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.balance import APART, balanced, scaled
from orchestration.checkups import gib
from orchestration.checkups_machine import this_machine
from orchestration.checkups_needs import disk_needs, memory_by_role
from orchestration.command import parse_recipe
from orchestration.costs import Costs
from orchestration.role_counts import role_counts
from orchestration.say import say
from orchestration.simulation import Forecast, require_balance, simulate
from orchestration.table import as_text

SAMPLERS = (1, 8, 64, 512)
EPILOG = """\
costs, in seconds, as --costs takes them (JSON or YAML): generate, respond, judge and learn as a
number a prompt or as [fixed, each]; latency, from a call to its beginning, a number or by method;
publish, load, driver and queue as numbers; crowding, the share of its speed that a core loses when
all of its machine work; weight_bytes and bandwidth (bytes a second), where samplers are on other
machines.
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe, what its calls cost, and what both come to."""

    config: RunConfig
    costs: Costs
    cores: float
    forecast: Forecast

    @property
    def bottleneck(self) -> str:
        """The role that works most."""
        return max(self.forecast.busy, key=lambda role: self.forecast.busy[role])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; returns the process's exit code."""
    options, recipe, overrides = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = load(recipe, overrides)
        require_balance(config)
        costs = _costs(config, options)
        cores = APART if options.apart else options.cores or this_machine().usable_cores
        plan = Plan(
            config=config, costs=costs, cores=cores, forecast=simulate(config, costs, cores=cores)
        )
        _say_plan(plan)
        if options.scale:
            _say_scale(plan)
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _costs(config: RunConfig, options: argparse.Namespace) -> Costs:
    if options.costs:
        return _read_costs(options.costs)
    from orchestration.calibration import calibrate  # starts runs

    if options.save:
        _write(options.save, "")  # better to fail now than after the runs
    folder = Path(tempfile.mkdtemp(prefix="dpkd-plan-"))
    costs = calibrate(config, folder, say, cores=this_machine().usable_cores, rounds=options.rounds)
    shutil.rmtree(folder)  # where a run fails, its log stays to be read
    if options.save:
        _write(options.save, json.dumps(costs.as_dict(), indent=1) + "\n")
        say(f"costs kept in {options.save}: --costs {options.save} plans with them again")
    return costs


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--save {path} cannot be written ({error.strerror})") from None


def _number_of_cores(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError("a number above 0 is needed")
    return value


def _rounds(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return value


def _read_costs(path: Path) -> Costs:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--costs {path} cannot be read: {error}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"--costs {path} holds no mapping of names to seconds")
    return Costs.from_dict(given)


def _say_plan(plan: Plan) -> None:
    config, forecast = plan.config, plan.forecast
    steps = config.learner.steps
    hours = steps * forecast.step_seconds / 3600
    took = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    say(
        f"{config.name}: {steps} steps of {config.learner.batch_size} pairs, "
        f"{forecast.step_seconds:.3g} s each, {forecast.pairs_per_second:.3g} pairs/s: {took}, "
        "without starts, models to be made, evaluations and checkpoints"
    )
    say(as_text(_roles_table(plan)).rstrip())
    disk = ", ".join(f"{place} {gib(need)}" for place, need in disk_needs(config).items())
    say(f"disk: {disk}")
    say(f"bottleneck: the {plan.bottleneck}; the driver uses {forecast.driver:.0%} of its core")
    _say_balance(plan)


def _roles_table(plan: Plan) -> Table:
    table = Table("role", "parts", "busy", "bubble", "memory of one")
    memory = memory_by_role(plan.config)
    for role, busy in plan.forecast.busy.items():
        count = role_counts(plan.config)[role]
        held = gib(memory[role]) if role in memory else "-"
        table.add_row(role, str(count), f"{busy:.0%}", f"{1 - busy:.0%}", held)
    return table


def _say_balance(plan: Plan) -> None:
    best = balanced(plan.config, plan.costs)
    seen = simulate(best, plan.costs, cores=APART)
    times = seen.pairs_per_second / plan.forecast.pairs_per_second
    busy = ", ".join(f"{role} {share:.0%}" for role, share in seen.busy.items())
    say(
        f"in balance, each part on a core or GPU of its own: student.replicas="
        f"{best.student.replicas} teacher.replicas={best.teacher.replicas} "
        f"learner.ranks={best.learner.ranks} replay.max_policy_lag={best.replay.max_policy_lag}: "
        f"{seen.pairs_per_second:.3g} pairs/s, {times:.1f} times as many (busy: {busy})"
    )


def _say_scale(plan: Plan) -> None:
    table = Table("samplers", "teachers", "batch", "pairs/s", "efficiency", "queue ops/s")
    for heading in ("driver", "driver ms/step", "weights' way, s/step"):
        table.add_column(heading)
    for row in scaled(plan.config, plan.costs, SAMPLERS):
        seen = row.forecast
        table.add_row(
            *(str(number) for number in (row.samplers, row.teachers, row.batch)),
            f"{seen.pairs_per_second:.4g}",
            f"{row.efficiency:.0%}",
            f"{seen.queue_operations:.3g}",
            f"{seen.driver:.0%}",
            f"{1e3 * seen.driver * seen.step_seconds:.0f}",
            f"{seen.fan_out_seconds:.3g}",
        )
    say(as_text(table).rstrip())


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
        "--rounds", type=_rounds, default=1, help="calibrate so often, on a machine that is shared"
    )
    parser.add_argument(
        "--cores", type=_number_of_cores, help="cores that all parts share (default: these)"
    )
    parser.add_argument(
        "--apart", action="store_true", help="every part has a core or GPU of its own"
    )
    parser.add_argument("--scale", action="store_true", help="also simulate 1 to 512 samplers")
    return parse_recipe(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
