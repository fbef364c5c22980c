"""The catalogue: every number that a run exports, declared once.

The exporter, the dashboard, the alerts, `docs/metrics.md` and their tests read it. A
metric's exported name is ``dpkd_<key>[_<unit>][_total]``; `python -m configs.metrics`
prints the table.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from configs.activities import BUSY_WITH, IDLE_FOR
from configs.replay import DropReason

Kind = Literal["counter", "gauge", "histogram", "info"]
Reduce = Literal["mean", "sum", "max", "last"]
"""How values of several micro-batches, ranks, replicas or steps become one."""
Source = Literal["driver", "role"]
"""Whose exporter serves it: the driver's, or that of the part itself."""

ROLES = ("sampler", "teacher", "learner")
ENGINES = (*ROLES, "offline", "reference")
"""Roles that work in processes of their own."""
DROP_REASONS: tuple[str, ...] = get_args(DropReason)
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. Made here only; read by everything that shows or checks numbers."""

    key: str
    """Short name: how code and `metrics.jsonl` call it."""
    kind: Kind
    help: str
    unit: str = ""
    """Base unit, the suffix of the name; empty: a pure number."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label → its possible values; an empty tuple: known at run time only, and few."""
    reduce: Reduce = "last"
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, ascending, without infinity."""
    source: Source = "driver"

    @property
    def name(self) -> str:
        """The name in Prometheus."""
        suffix = f"_{self.unit}" if self.unit and not self.key.endswith(self.unit) else ""
        kind = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return f"dpkd_{self.key}{suffix}{kind}"


def _gauge(
    key: str,
    text: str,
    *,
    unit: str = "",
    reduce: Reduce = "mean",
    labels: Mapping[str, tuple[str, ...]] | None = None,
) -> Metric:
    return Metric(
        key=key, kind="gauge", help=text, unit=unit, reduce=reduce, labels=dict(labels or {})
    )


def _counter(
    key: str, text: str, *, unit: str = "", labels: Mapping[str, tuple[str, ...]] | None = None
) -> Metric:
    return Metric(
        key=key, kind="counter", help=text, unit=unit, reduce="sum", labels=dict(labels or {})
    )


def _of_role(
    key: str, text: str, *, kind: Kind, labels: Mapping[str, tuple[str, ...]] | None = None
) -> Metric:
    """Declare seconds that a part's own exporter serves."""
    who: dict[str, tuple[str, ...]] = {"role": ENGINES, "replica": ()}
    return Metric(
        key=key,
        kind=kind,
        help=text,
        unit="seconds",
        reduce="last" if kind == "gauge" else "sum",
        labels={**who, **(labels or {})},
        source="role",
    )


def _duration(key: str, text: str) -> Metric:
    return Metric(
        key=key, kind="histogram", help=text, unit="seconds", reduce="sum", buckets=_SECONDS
    )


_OBJECTIVE = (
    _gauge("loss", "Total loss of the step: the objective's terms, and the LM loss, weighted."),
    _gauge("loss_preference", "Preference of y_t, or of the teacher's action, without any anchor."),
    _gauge(
        "loss_sft",
        "Negative log-likelihood of the gold responses, or of SeqKD's y_t, nats per token.",
    ),
    _gauge(
        "loss_nll",
        "Negative log-likelihood beside another term, unweighted, nats per token: of y_t (CPO, "
        "PLaD), of the visited responses (KD).",
    ),
    _gauge(
        "loss_divergence",
        "Divergence between teacher and student that is learned from, nats per visited state.",
    ),
    _gauge("loss_policy_gradient", "Surrogate of the policy gradient (MiniLLM, OPD)."),
    _gauge("loss_single_step", "MiniLLM's exact one-step term, nats per token."),
    _gauge("loss_lm", "Language-model loss on the corpus, unweighted, nats per token."),
    _gauge(
        "reward_teacher",
        "Implicit reward beta(log q - log p) of the teacher responses y_t; beta is tau for IPO, "
        "b1 + b2 for daDPO.",
    ),
    _gauge("reward_student", "Implicit reward beta(log q - log p) of the student responses y_s."),
    _gauge(
        "reward_margin",
        "Implicit reward of y_t minus that of y_s. A rising margin is not 'better' by itself: "
        "on fresh pairs, both drawn at temperature 1, its expectation is "
        "-beta(KL(p||q) + KL(q||p)), never positive, and zero only where student and teacher "
        "agree (docs/math.md, identity 11).",
    ),
    _gauge(
        "preference_accuracy",
        "Share of pairs whose implicit reward is higher for y_t than for y_s.",
        unit="ratio",
    ),
    _gauge(
        "reverse_kl_k1",
        "KL(q||p) per sequence on y_s, estimator k1 = log q/p: unbiased where y_s is drawn at "
        "temperature 1, any sign.",
        unit="nats",
    ),
    _gauge(
        "reverse_kl_k3",
        "KL(q||p) per sequence on y_s, estimator k3 = p/q - 1 - log p/q by token: never negative.",
        unit="nats",
    ),
    _gauge("reverse_kl_per_token", "k1 summed over y_s, divided by their tokens.", unit="nats"),
    _gauge("reverse_kl_first_token", "Exact KL(q||p) of the first response token.", unit="nats"),
    _gauge("forward_kl_first_token", "Exact KL(p||q) of the first response token.", unit="nats"),
    _gauge(
        "response_length",
        "Mean length of the batch's responses.",
        unit="tokens",
        labels={"role": ("teacher", "student")},
    ),
)

_LEARNING = (
    _gauge("step", "Optimizer steps made.", reduce="last"),
    _gauge("epoch", "Pass over the data that the newest consumed prompt is of.", reduce="last"),
    _gauge("learning_rate", "Learning rate of the step.", reduce="last"),
    _gauge("grad_norm", "Gradient norm before clipping.", reduce="last"),
    _counter("pairs", "Pairs learned from."),
    _counter("tokens", "Response tokens drawn, scored or learned from.", labels={"role": ROLES}),
    _counter("nonfinite", "NaN or infinite values seen in any metric or batch.", unit="values"),
    _counter("skipped_steps", "Steps given up before the optimizer, their loss not finite."),
)

_VERSIONS = (
    _gauge(
        "weight_version",
        "Learner step whose weights the role holds.",
        reduce="last",
        labels={"role": ("sampler", "learner")},
    ),
    Metric(
        key="policy_lag",
        kind="histogram",
        help="Learner steps between drawing a response and learning from it.",
        unit="steps",
        reduce="sum",
        buckets=(0, 1, 2, 4, 8, 16, 32, 64),
    ),
    _gauge("policy_lag_mean", "Mean policy lag of the newest batch, in steps."),
    _gauge("policy_lag_max", "Largest policy lag of the newest batch, in steps.", reduce="max"),
    _gauge(
        "policy_lag_limit",
        "Oldest response that may be learned from, in steps: replay.max_policy_lag, and the age of "
        "the snapshot that draws negatives.",
        reduce="last",
    ),
    _gauge(
        "logprob_drift",
        "Largest |log q by the sampler - log q by the learner| over the batch's y_s; at policy "
        "lag 0 it is the disagreement of two engines on the same weights.",
        unit="nats",
        reduce="max",
    ),
    _gauge(
        "weight_probe_difference",
        "Largest disagreement over the probe sequence in the newest proofs of weights.",
        unit="nats",
        reduce="max",
    ),
    _counter("weight_sync", "Bytes of weights pushed.", unit="bytes"),
)

_QUEUE = (
    _counter(
        "tuples",
        "Uses of prompts that reached a state.",
        labels={"state": ("issued", "consumed", "redrawn", "duplicate", "late")},
    ),
    _counter(
        "dropped",
        "Uses of prompts given up, by reason.",
        unit="tuples",
        labels={"reason": DROP_REASONS},
    ),
    _gauge(
        "queue_depth",
        "Tuples in the replay queue.",
        unit="tuples",
        reduce="last",
        labels={"state": ("queued", "leased", "stale", "redrawing")},
    ),
    _gauge(
        "in_flight",
        "Uses of prompts that are issued, and neither consumed nor dropped.",
        unit="tuples",
        reduce="last",
    ),
    _gauge(
        "unaccounted",
        "What the law of conservation leaves over: issued - consumed - dropped - in flight. "
        "Always 0; anything else is lost, or counted twice.",
        unit="tuples",
        reduce="last",
    ),
    _gauge("queue_capacity", "replay.max_tuples.", unit="tuples", reduce="last"),
    _gauge("queue", "Bytes held by the replay queue.", unit="bytes", reduce="last"),
    _gauge("queue_waiting_puts", "Producers that wait for room in the queue.", reduce="last"),
    _counter("expired_leases", "Leases delivered again because no ack came in time."),
)

_TIME = (
    _of_role(
        "busy_seconds",
        "Time a part spent working, by what it did, the call under way included.",
        kind="counter",
        labels={"activity": BUSY_WITH},
    ),
    _of_role(
        "idle_seconds",
        "Time a part spent waiting, by what it waited for; the wait under way is not known yet.",
        kind="counter",
        labels={"waiting_for": IDLE_FOR},
    ),
    _of_role("waiting_seconds", "The wait under way; 0 while the part works.", kind="gauge"),
    _gauge(
        "bubble",
        "Share of a role's time, since the loops began, that its parts waited.",
        unit="ratio",
        reduce="last",
        labels={"role": ENGINES},
    ),
    _duration(
        "sampling_seconds",
        "One call of a sampler to draw responses, evaluations included; where calls overlap, from "
        "the end of the one before.",
    ),
    _duration("answering_seconds", "One call of a teacher to answer prompts, cached or not."),
    _duration("scoring_seconds", "One call of a teacher to score responses."),
    _duration("step_seconds", "One step, from one acknowledged batch to the next."),
    _duration(
        "sync_seconds", "One weight push, from asking the learner until every sampler could draw."
    ),
    _duration("checkpoint_seconds", "Writing one checkpoint."),
    _gauge(
        "checkpoint_timestamp", "Unix time of the newest checkpoint.", unit="seconds", reduce="last"
    ),
)

_SERVICE = (
    _counter("teacher_cache_hits", "Teacher responses read from the cache."),
    _counter("teacher_cache_misses", "Teacher responses that had to be made."),
    _counter("teacher_errors", "Prompts to which the teacher gave no usable answer."),
    _counter("checkpoint_failures", "Checkpoints that could not be written."),
    _counter(
        "restarts",
        "Restarts of a role's actors.",
        labels={"role": (*ENGINES, "queue")},
    ),
    _gauge(
        "samplers",
        "Samplers that draw, that come (or wait for a place in the cluster), and that are wanted.",
        reduce="last",
        labels={"state": ("drawing", "coming", "wanted")},
    ),
    _gauge(
        "evaluation_score",
        "Quality on the validation rows; the score label names what is measured, and its unit.",
        reduce="last",
        labels={"score": (), "model": ("student", "teacher")},
    ),
    Metric(
        key="stage",
        kind="info",
        help="What the driver's numbers are of: the run by its name, or a stage that makes a "
        "model; each begins with empty gauges and counters at zero.",
        labels={"stage": ()},
    ),
    Metric(
        key="build",
        kind="info",
        help="Versions of the software; the value is always 1.",
        labels=dict.fromkeys(("version", "python", "ray", "torch", "vllm", "deepspeed"), ()),
    ),
)

METRICS: tuple[Metric, ...] = _OBJECTIVE + _LEARNING + _VERSIONS + _QUEUE + _TIME + _SERVICE
"""The catalogue, in the order of the table."""

CATALOGUE: Mapping[str, Metric] = {metric.key: metric for metric in METRICS}
"""The same by key."""

DRIVER_METRICS = tuple(metric for metric in METRICS if metric.source == "driver")
ROLE_METRICS = tuple(metric for metric in METRICS if metric.source == "role")

Series = tuple[str, Mapping[str, str]]
"""A metric's key, and its labels."""

STATISTICS: Mapping[str, Series] = {
    "tokens": ("tokens", {"role": "learner"}),
    "response_length_teacher": ("response_length", {"role": "teacher"}),
    "response_length_student": ("response_length", {"role": "student"}),
    "seconds": ("step_seconds", {}),
    "lag": ("policy_lag_max", {}),
}
"""Where a step's statistics go whose key is not simply a metric's."""

QUEUE_STATISTICS: Mapping[str, Series] = {
    "depth": ("queue_depth", {"state": "queued"}),
    "leased": ("queue_depth", {"state": "leased"}),
    "stale": ("queue_depth", {"state": "stale"}),
    "redrawing": ("queue_depth", {"state": "redrawing"}),
    "bytes": ("queue", {}),
    "waiting_puts": ("queue_waiting_puts", {}),
    "duplicates": ("tuples", {"state": "duplicate"}),
    "late": ("tuples", {"state": "late"}),
    "stale_found": ("tuples", {"state": "redrawn"}),
    "expired": ("expired_leases", {}),
}
"""Where the replay queue's statistics go; its other keys stay in `metrics.jsonl`."""


def series_of(statistic: str) -> Series:
    """Return the series that a step's statistic feeds. Raises KeyError for an unknown one."""
    if statistic in STATISTICS:
        return STATISTICS[statistic]
    if statistic not in CATALOGUE:
        raise KeyError(f"statistic {statistic!r} is not in the catalogue, configs/metrics.py")
    return statistic, {}


def markdown_table() -> str:
    """Return `docs/metrics.md`."""
    rows = [
        "| metric | type | served by | labels | reduces by | meaning |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{metric.name}` | {metric.kind} | {metric.source} | {_label_cell(metric)} "
            f"| {metric.reduce} | {metric.help.replace('|', '&#124;')} |"
            for metric in METRICS
        ),
    ]
    return _INTRODUCTION + "\n".join(rows) + "\n"


def _label_cell(metric: Metric) -> str:
    cells = [f"`{label}`: {', '.join(v) or '…'}" for label, v in metric.labels.items()]
    return "; ".join(cells)


_INTRODUCTION = """# Metrics

Written by `python -m configs.metrics > docs/metrics.md` from the catalogue,
`configs/metrics.py`; a test compares the two. A gauge has no sample before it is first
measured, and stays NaN when NaN was measured; `dpkd_nonfinite_values_total` counts those.
`reduces by` says how values of several micro-batches, ranks or replicas become one.
`served by`: the driver's exporter (`monitoring.port`), or that of each sampler, teacher and
learner rank (`monitoring.role_port`), which adds its process's memory and CPU under Prometheus's
usual names (`process_resident_memory_bytes` …); with `cluster.local` one exporter serves all.

"""

if __name__ == "__main__":
    sys.stdout.write(markdown_table())
