"""The current values of the catalogue's metrics, as a `prometheus_client` collector.

A collector of our own, and not the library's `Gauge` and `Counter`, because those export 0
for a gauge that was never measured, and a `_created` series beside every counter.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from configs.metrics import Metric

LabelValues = tuple[str, ...]


@dataclass
class _Histogram:
    counts: list[int]
    total: float = 0.0


@dataclass
class _Values:
    """One metric's values, by label values in the order of the catalogue."""

    metric: Metric
    numbers: dict[LabelValues, float] = field(default_factory=dict)
    histograms: dict[LabelValues, _Histogram] = field(default_factory=dict)


class MetricStore(Collector):
    """Holds one value for every series; safe to read from the scraping thread.

    Counters and histograms start at zero; a gauge has no sample until it is first set.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._lock = threading.Lock()
        self._values = {metric.key: _Values(metric) for metric in metrics}
        self.reset()

    def reset(self) -> None:
        """Begin anew: gauges without a value, counters and histograms at zero."""
        with self._lock:
            for values in self._values.values():
                values.numbers.clear()
                values.histograms.clear()
                for labels in product(*values.metric.labels.values()):
                    self._start_at_zero(values, labels)

    def set(self, key: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge; or a counter, to a total that somebody else keeps.

        A gauge keeps NaN and infinity; a counter, which would never recover, ignores them.
        """
        values = self._find(key, labels, ("gauge", "counter", "info"))
        with self._lock:
            if self._count_if_nonfinite(value) and values.metric.kind == "counter":
                return
            values.numbers[_in_order(values.metric, labels)] = float(value)

    def inc(self, key: str, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter; NaN and infinity are counted as such, and not added."""
        values = self._find(key, labels, ("counter",))
        with self._lock:
            if not self._count_if_nonfinite(amount):
                assert amount >= 0, f"{key}: a counter cannot fall by {-amount}"
                values.numbers[_in_order(values.metric, labels)] += amount

    def observe(self, key: str, value: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram; NaN and infinity are counted as such, and not added."""
        values = self._find(key, labels, ("histogram",))
        with self._lock:
            if not self._count_if_nonfinite(value):
                histogram = values.histograms[_in_order(values.metric, labels)]
                histogram.counts[bisect_left(values.metric.buckets, value)] += 1
                histogram.total += value

    def collect(self) -> Iterable[Family]:
        """Return every metric of the catalogue; called by the registry at each scrape."""
        with self._lock:
            return [_family(values) for values in self._values.values()]

    def _find(self, key: str, labels: Mapping[str, str], kinds: tuple[str, ...]) -> _Values:
        assert key in self._values, f"{key!r} is not in the catalogue, configs/metrics.py"
        values = self._values[key]
        assert values.metric.kind in kinds, f"{key} is a {values.metric.kind}"
        declared = values.metric.labels
        assert labels.keys() == declared.keys(), f"{key} has labels {[*declared]}, got {labels}"
        for label, value in labels.items():
            assert not declared[label] or value in declared[label], f"{key}: {label}={value!r}"
        return values

    def _count_if_nonfinite(self, value: float) -> bool:
        nonfinite = not math.isfinite(value)
        if nonfinite:
            self._values["nonfinite"].numbers[()] += 1
        return nonfinite

    def _start_at_zero(self, values: _Values, labels: LabelValues) -> None:
        if values.metric.kind == "counter":
            values.numbers[labels] = 0.0
        elif values.metric.kind == "histogram":
            values.histograms[labels] = _Histogram([0] * (len(values.metric.buckets) + 1))


def _in_order(metric: Metric, labels: Mapping[str, str]) -> LabelValues:
    return tuple(labels[label] for label in metric.labels)


def _family(values: _Values) -> Family:
    metric, labels = values.metric, list(values.metric.labels)
    if metric.kind == "histogram":
        histograms = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for label_values, histogram in values.histograms.items():
            buckets = _cumulative(metric, histogram)
            histograms.add_metric(label_values, buckets, sum_value=histogram.total)
        return histograms
    if metric.kind == "info":
        versions = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
        for label_values in values.numbers:
            versions.add_metric((), dict(zip(labels, label_values, strict=True)))
        return versions
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    family = kinds[metric.kind](metric.name, metric.help, labels=labels)
    for label_values, number in values.numbers.items():
        family.add_metric(label_values, number)
    return family


def _cumulative(metric: Metric, histogram: _Histogram) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in metric.buckets), "+Inf"]
    so_far = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, histogram.counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets
