"""What a plan prints: the run, its roles, the balance, and where the design stops scaling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from configs.run import RunConfig
from orchestration.balance import Balance, balanced
from orchestration.checkups import gib
from orchestration.checkups_needs import (
    RoleMemory,
    disk_needs,
    memory_by_role,
    unknown_on_disk,
)
from orchestration.costs import Costs
from orchestration.role_counts import role_counts
from orchestration.say import say
from orchestration.scaling import Law, Scaled, laws
from orchestration.simulation import Forecast
from orchestration.table import as_text

UNKNOWN = " + weights of unknown size"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe, what its calls cost, and what both come to."""

    config: RunConfig
    costs: Costs
    forecast: Forecast

    @property
    def bottleneck(self) -> str:
        """The role that works most."""
        return max(self.forecast.busy, key=lambda role: self.forecast.busy[role])


def say_plan(plan: Plan) -> None:
    """Print what a run takes, which part holds it up, and what would balance it."""
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
    unknown = unknown_on_disk(config)
    needs = disk_needs(config).items()
    places = (f"{place} {gib(need)}{UNKNOWN * (place in unknown)}" for place, need in needs)
    say(f"disk: {', '.join(places)}")
    say(f"bottleneck: the {plan.bottleneck}; the driver uses {forecast.driver:.0%} of its core")
    _say_balance(plan, balanced(config, plan.costs))


def _roles_table(plan: Plan) -> Table:
    memory = memory_by_role(plan.config)
    gpus = any(each.on_gpu for each in memory.values())
    table = Table("role", "parts", "busy", "bubble", "memory of one")
    if gpus:
        table.add_column("GPU memory of one")
    for role, busy in plan.forecast.busy.items():
        count = role_counts(plan.config)[role]
        held = _host(memory[role]) if role in memory else "-"
        row = [role, str(count), f"{busy:.0%}", f"{1 - busy:.0%}", held]
        table.add_row(*row, *([_gpu(memory.get(role))] if gpus else []))
    return table


def _host(memory: RoleMemory) -> str:
    return gib(memory.host) + UNKNOWN * (memory.unknown and not memory.on_gpu)


def _gpu(memory: RoleMemory | None) -> str:
    """Say what a role's GPUs hold: an engine fills the rest of its share with its cache."""
    if memory is None or not memory.on_gpu:
        return "-"
    return "weights of unknown size" if memory.unknown else gib(memory.gpu)


def _say_balance(plan: Plan, best: Balance) -> None:
    config, seen = best.config, best.forecast
    times = seen.pairs_per_second / plan.forecast.pairs_per_second
    busy = ", ".join(f"{role} {share:.0%}" for role, share in seen.busy.items())
    say(
        f"in balance, each part on a core or GPU of its own: student.replicas="
        f"{config.student.replicas} teacher.replicas={config.teacher.replicas} "
        f"learner.ranks={config.learner.ranks} replay.max_policy_lag="
        f"{config.replay.max_policy_lag}: {seen.pairs_per_second:.3g} pairs/s, {times:.1f} times "
        f"as many, with {_parts(config)} parts instead of {_parts(plan.config)} (busy: {busy})"
    )
    if config.learner.ranks > 1 and not plan.costs.all_reduce:
        say(
            "ranks are taken to share a batch evenly and to add up gradients in no time: all_reduce"
        )
    if bound := _bound(config):
        say(f"{bound} allows no other number of samplers and teachers")


def _parts(config: RunConfig) -> int:
    return config.student.replicas + config.teacher.replicas + config.learner.ranks


def _bound(config: RunConfig) -> str | None:
    """Return the setting that forbids several parts of a kind."""
    if config.cluster.local:
        return "cluster.local=true"
    return "deterministic=true" if config.deterministic else None


def say_scale(plan: Plan, rows: Sequence[Scaled]) -> None:
    """Print what becomes of more and more samplers, and what ends it."""
    if bound := _bound(plan.config):
        say(f"{bound} allows one sampler; with more, were it not set:")
    far = bool(plan.costs.bandwidth)
    table = Table("samplers", "teachers", "batch", "pairs/s", "efficiency", "queue ops/s")
    for heading in ("driver", "driver ms/step", "weights' way, s/step", "tuples' way, s/step"):
        table.add_column(heading)
    for row in rows:
        seen = row.forecast
        table.add_row(
            *(str(number) for number in (row.samplers, row.teachers, row.batch)),
            f"{seen.pairs_per_second:.4g}",
            f"{row.efficiency:.0%}",
            f"{seen.queue_operations:.3g}",
            f"{seen.driver:.0%}",
            f"{1e3 * seen.driver_seconds:.0f}",
            f"{seen.fan_out_seconds:.3g}" if far else "-",
            f"{seen.tuples_seconds:.3g}",
        )
    say(as_text(table).rstrip())
    found = [law for law in laws(rows) if far or law.resource != "weights"]
    _say_laws(found, rows[0].forecast.step_seconds)
    if not far:
        say(
            "the weights' way to other machines is not counted: these costs have no bandwidth "
            "(bytes a second from one machine to another; with weight_bytes, in --costs)"
        )


def _say_laws(found: Sequence[Law], step: float) -> None:
    table = Table("shared by all", "seconds a step with N samplers", "off by at most")
    table.add_column("a whole step at N")
    for law in found:
        end = f"{law.end:.3g}" if math.isfinite(law.end) else "never"
        table.add_row(law.resource, f"{law.fixed:.3g} + {law.each:.3g} N", f"{law.off:.1%}", end)
    say(as_text(table).rstrip())
    first = found[0]
    if math.isinf(first.end):
        say("nothing that all samplers share takes any time: with these costs the design scales on")
        return
    say(
        f"first ends the {first.resource}: with {first.end:.3g} samplers it takes as long as a "
        f"whole step with one, {step:.3g} s"
    )
