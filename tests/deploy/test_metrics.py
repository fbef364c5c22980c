"""What a run exports keeps to Prometheus's conventions."""

from prometheus_client import CollectorRegistry, generate_latest

from configs.metrics import DRIVER_METRICS, METRICS, ROLE_METRICS
from orchestration.metric_store import MetricStore
from tests.deploy.promtool import promtool


def exported() -> str:
    """The text of a scrape in which every metric has a value."""
    registry = CollectorRegistry()
    for metrics in (DRIVER_METRICS, ROLE_METRICS):
        store = MetricStore(metrics)
        for metric in metrics:
            labels = {label: (values or ("x",))[0] for label, values in metric.labels.items()}
            (store.observe if metric.kind == "histogram" else store.set)(metric.key, 1.0, labels)
        registry.register(store)
    return generate_latest(registry).decode()


def test_names_units_and_helps_are_as_prometheus_wants_them():
    text = exported()
    assert all(f"# HELP {metric.name} " in text for metric in METRICS)
    assert promtool("check", "metrics", given=text) == ""
