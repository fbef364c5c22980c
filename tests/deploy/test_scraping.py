"""What keeps Prometheus from a run's exporters, or alerts from their series, is complained of."""

from typing import Any

import pytest

from tests.deploy.manifests import Manifest, one
from tests.deploy.planted import Planted, assert_caught, container, head


def _monitor(manifests: list[Manifest]) -> Manifest:
    return one(manifests, "PodMonitor")["spec"]


def _endpoint(manifests: list[Manifest], **fields: Any) -> None:
    _monitor(manifests)["podMetricsEndpoints"][0].update(fields)


def _relabel(manifests: list[Manifest], place: int, **fields: Any) -> None:
    _monitor(manifests)["podMetricsEndpoints"][1]["relabelings"][place].update(fields)


def _alert(manifests: list[Manifest], place: int) -> Manifest:
    return one(manifests, "PrometheusRule")["spec"]["groups"][0]["rules"][place]


PLANTED: Planted = {
    "a port that nobody scrapes": (
        lambda m: _monitor(m)["podMetricsEndpoints"].pop(0),
        "nobody scrapes the port driver",
    ),
    "a port that nobody has": (
        lambda m: _endpoint(m, port="http"),
        "PodMonitor asks for a port 'http' of no pod",
    ),
    "no port": (
        lambda m: _monitor(m)["podMetricsEndpoints"][0].pop("port"),
        "PodMonitor asks for a port '' of no pod",
    ),
    "a port twice": (
        lambda m: _endpoint(m, port="teacher"),
        "PodMonitor asks for the port teacher twice",
    ),
    "another path": (
        lambda m: _endpoint(m, path="/"),
        "PodMonitor, port driver: asks for /, exporters answer /metrics",
    ),
    "another scheme": (
        lambda m: _endpoint(m, scheme="https"),
        "PodMonitor, port driver: scheme is https",
    ),
    "an interval that is none": (
        lambda m: _endpoint(m, interval="10"),
        "PodMonitor, port driver: interval is no duration: '10'",
    ),
    "series without their run": (
        lambda m: _monitor(m)["podMetricsEndpoints"][0]["relabelings"].pop(0),
        "PodMonitor, port driver: series get no label run of __meta_kubernetes_namespace",
    ),
    "series of another run": (
        lambda m: _relabel(m, 0, sourceLabels=["__meta_kubernetes_pod_name"]),
        "PodMonitor, port sampler: series get no label run of",
    ),
    "a run by part of its name": (
        lambda m: _relabel(m, 0, regex="(.).*"),
        "PodMonitor, port sampler: series get no label run of",
    ),
    "series without their process": (
        lambda m: _relabel(m, 1, targetLabel="role"),
        "PodMonitor, port sampler: series get no label process of",
    ),
    "series that are dropped": (
        lambda m: _relabel(m, 1, action="drop"),
        "PodMonitor, port sampler: a relabeling may take series or labels away",
    ),
    "a monitor of everything": (
        lambda m: _monitor(m).update(selector={}),
        "PodMonitor does not select by labels alone",
    ),
    "a monitor of nothing": (
        lambda m: _monitor(m).pop("selector"),
        "PodMonitor does not select by labels alone",
    ),
    "a label that nobody selects": (
        lambda m: head(m)["metadata"]["labels"].update({"app.kubernetes.io/name": "other"}),
        "PodMonitor does not select the pods of head",
    ),
    "a monitor of other namespaces": (
        lambda m: _monitor(m).update(namespaceSelector={"any": True}),
        "PodMonitor looks at other namespaces than dpkd",
    ),
    "no job's label": (
        lambda m: _monitor(m).pop("jobLabel"),
        "jobLabel is not set, not app.kubernetes.io/name",
    ),
    "a job that alerts do not know": (
        lambda m: _monitor(m).update(jobLabel="app"),
        'alerts ask for job="dpkd", and series of head have job="dpkd/dpkd"',
    ),
    "an alert of another job": (
        lambda m: _alert(m, 0).update(expr='up{job="ray"} == 0'),
        'alerts ask for job="ray", and series of learner have job="dpkd"',
    ),
    "an older kind": (
        lambda m: one(m, "PodMonitor").update(apiVersion="monitoring.coreos.com/v1beta1"),
        "PodMonitor dpkd is of monitoring.coreos.com/v1beta1",
    ),
    "a monitor without alerts": (
        lambda m: m.remove(one(m, "PrometheusRule")),
        "there is no PrometheusRule beside the PodMonitor",
    ),
    "alerts without a monitor": (
        lambda m: m.remove(one(m, "PodMonitor")),
        "there is no PodMonitor beside the PrometheusRule",
    ),
    "an alert that leads nowhere": (
        lambda m: _alert(m, 1)["annotations"].update(runbook="docs/runbook.md#stalled"),
        "the alert DpkdLearnerStalled leads to no heading of docs/runbook.md",
    ),
    "an alert that leads not at all": (
        lambda m: _alert(m, 2)["annotations"].pop("runbook"),
        "the alert DpkdUnaccounted leads to no heading of docs/runbook.md",
    ),
    "a port of another name": (
        lambda m: container(m)["ports"][3].update(name="metrics"),
        "nobody scrapes the port metrics",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    assert_caught(PLANTED[error], tmp_path)
