"""The Grafana dashboard, built from the catalogue: one screen, read from top to bottom.

    make generated

A metric's HELP is its panel's description; an expression over a metric that the catalogue lacks is
a KeyError. Import the JSON into Grafana, or provision it; it asks for a Prometheus data source.
"""

import sys
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import Dashboard, DataSourceRef

from configs.metrics import CATALOGUE, Metric

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WINDOW = "$__rate_interval"
WIDTH, HEIGHT = 8, 7
"""Of a panel; a row of the screen is 24 wide."""


class Line(NamedTuple):
    """One query of a panel."""

    expression: str
    legend: str
    keys: tuple[str, ...]
    """Keys of the metrics that it reads."""


class Picture(NamedTuple):
    """One panel."""

    title: str
    unit: str
    """Grafana's name of the unit."""
    lines: tuple[Line, ...]


def value(*keys: str, legend: str = "") -> tuple[Line, ...]:
    """Show gauges as they are, a line for each set of labels."""
    return tuple(Line(_named(key), legend or _legend(CATALOGUE[key]), (key,)) for key in keys)


def rate(*keys: str) -> tuple[Line, ...]:
    """Show counters' growth a second."""
    return tuple(
        Line(f"rate({_named(key)}[{WINDOW}])", _legend(CATALOGUE[key]), (key,)) for key in keys
    )


def growth(*keys: str) -> tuple[Line, ...]:
    """Show how much counters have grown over the window on the screen's resolution."""
    return tuple(
        Line(f"increase({_named(key)}[{WINDOW}])", _legend(CATALOGUE[key]), (key,)) for key in keys
    )


def quantiles(*keys: str) -> tuple[Line, ...]:
    """Show the median and the 95th percentile of histograms."""
    return tuple(
        Line(_quantile(share, key), f"{key} p{share * 100:g}", (key,))
        for key in keys
        for share in (0.5, 0.95)
    )


def share(key: str, by: str) -> Line:
    """Show of each role what its parts did, or waited for, as a share of their time."""
    spent = (f"rate({_named(each)}[{WINDOW}])" for each in ("busy_seconds", "idle_seconds"))
    whole = " + ".join(f"sum by (run, role) ({seconds})" for seconds in spent)
    part = f"sum by (run, role, {by}) (rate({_named(key)}[{WINDOW}]))"
    expression = f"{part} / on(run, role) group_left() ({whole})"
    return Line(expression, f"{{{{role}}}} {{{{{by}}}}}", ("busy_seconds", "idle_seconds"))


AGE = Line("time() - {newest}", "age", ("checkpoint_timestamp",))


def rows() -> dict[str, tuple[Picture, ...]]:
    """Return the questions, and the panels that answer them."""
    return {
        "Does it learn?": (
            Picture("Implicit reward", "short", value("reward_teacher", "reward_student")),
            Picture("Reward margin", "short", value("reward_margin")),
            Picture("Preference accuracy", "percentunit", value("preference_accuracy")),
            Picture("Reverse KL, nats", "short", value("reverse_kl_k1", "reverse_kl_k3")),
            Picture("Reverse KL by token, nats", "short", value("reverse_kl_per_token")),
            Picture(
                "KL of the first token, nats",
                "short",
                value("reverse_kl_first_token", "forward_kl_first_token"),
            ),
            Picture(
                "Loss", "short", value(*(key for key in CATALOGUE if key.split("_")[0] == "loss"))
            ),
            Picture("Evaluation scores", "short", value("evaluation_score")),
            Picture("Gradient norm, learning rate", "short", value("grad_norm", "learning_rate")),
            Picture("Step, epoch", "short", value("step", "epoch")),
            Picture("Length of responses, tokens", "short", value("response_length")),
        ),
        "What is it waiting for?": (
            Picture("Waiting since the loops began", "percentunit", value("bubble")),
            Picture("Busy with", "percentunit", (share("busy_seconds", "activity"),)),
            Picture("Waiting for", "percentunit", (share("idle_seconds", "waiting_for"),)),
            Picture("The wait under way", "s", value("waiting_seconds")),
            Picture(
                "Tuples in the queue",
                "short",
                value("queue_depth", "queue_capacity", "queue_waiting_puts", "in_flight"),
            ),
            Picture(
                "Policy lag, steps",
                "short",
                (
                    *value("policy_lag_mean", "policy_lag_max", "policy_lag_limit"),
                    *quantiles("policy_lag"),
                ),
            ),
            Picture("A step", "s", quantiles("step_seconds")),
            Picture(
                "Sampling, scoring",
                "s",
                quantiles("sampling_seconds", "answering_seconds", "scoring_seconds"),
            ),
            Picture("Weight push", "s", quantiles("sync_seconds")),
        ),
        "Is it right?": (
            Picture("Log-probability drift, nats", "short", value("logprob_drift")),
            Picture("Probe after a push, nats", "short", value("weight_probe_difference")),
            Picture("Weight version", "short", value("weight_version")),
            Picture("Not finite; skipped steps", "short", growth("nonfinite", "skipped_steps")),
            Picture("Unaccounted tuples", "short", value("unaccounted")),
            Picture("Uses of prompts", "ops", rate("tuples")),
        ),
        "Is it healthy?": _health(),
        "What does it cost?": (
            Picture("Tokens", "ops", rate("tokens")),
            Picture("Pairs", "ops", rate("pairs")),
            Picture("Teacher's cache", "ops", rate("teacher_cache_hits", "teacher_cache_misses")),
            Picture("Weights pushed", "Bps", rate("weight_sync")),
            Picture("Queue", "bytes", value("queue")),
            Picture("Stage", "short", value("stage")),
            Picture(
                "Software", "short", value("build", legend="{{version}} ray {{ray}} vllm {{vllm}}")
            ),
        ),
    }


def _health() -> tuple[Picture, ...]:
    age = AGE._replace(expression=AGE.expression.format(newest=_named("checkpoint_timestamp")))
    return (
        Picture("Restarts", "short", growth("restarts")),
        Picture("Samplers", "short", value("samplers")),
        Picture("Drops", "short", growth("dropped")),
        Picture("Age of the newest checkpoint", "s", (age,)),
        Picture("Writing a checkpoint", "s", quantiles("checkpoint_seconds")),
        Picture(
            "Failures",
            "short",
            growth("checkpoint_failures", "teacher_errors", "expired_leases"),
        ),
    )


def build() -> Dashboard:
    """Return the dashboard."""
    screen = (
        dashboards.Dashboard("DPKD: one run")
        .uid("dpkd-run")
        .tags(["dpkd"])
        .refresh("5s")
        .time("now-1h", "now")
        .readonly()
        .with_variable(dashboards.DatasourceVariable("source").type("prometheus"))
        .with_variable(
            dashboards.QueryVariable("run")
            .datasource(SOURCE)
            .query("label_values(dpkd_step, run)")
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for question, pictures in rows().items():
        screen = screen.with_row(dashboards.Row(question))
        for picture in pictures:
            screen = screen.with_panel(_panel(picture))
    return screen.build()


def _panel(picture: Picture) -> timeseries.Panel:
    keys = dict.fromkeys(key for line in picture.lines for key in line.keys)
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST)
    panel = (
        timeseries.Panel()
        .title(picture.title)
        .description("\n\n".join(f"`{CATALOGUE[k].name}`: {CATALOGUE[k].help}" for k in keys))
        .datasource(SOURCE)
        .unit(picture.unit)
        .span(WIDTH)
        .height(HEIGHT)
        .legend(legend.placement(LegendPlacement.BOTTOM).show_legend(True))
    )
    for line in picture.lines:
        query = prometheus.Dataquery().expr(line.expression).legend_format(line.legend)
        panel = panel.with_target(query.datasource(SOURCE))
    return panel


def _quantile(share: float, key: str) -> str:
    grown = f"rate({_named(key, '_bucket')}[{WINDOW}])"
    return f"histogram_quantile({share}, sum by (le, run) ({grown}))"


def _named(key: str, ending: str = "") -> str:
    return f'{CATALOGUE[key].name}{ending}{{run=~"$run"}}'


def _legend(metric: Metric) -> str:
    labels = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
    return f"{metric.key} {labels}".strip()


if __name__ == "__main__":
    sys.stdout.write(JSONEncoder(sort_keys=True, indent=2).encode(build()) + "\n")
