"""A part's own exporter, and the one that parts of one process share."""

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from configs.monitoring import MonitoringConfig
from orchestration.busy_clock import BusyClock
from orchestration.exporter import MetricsHub
from orchestration.role_metrics import PORT_STEPS, RoleExporter, RoleMetrics


def get(port: int | None, path: str = "/metrics") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(f"http://127.0.0.1:{port}{path}", timeout=5).read().decode()


def series(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def worked(method: str) -> BusyClock:
    clock = BusyClock()
    clock.begin(method)
    clock.end(method)
    return clock


def test_a_part_tells_what_it_did_and_awaits_and_what_memory_it_holds():
    exporter = RoleExporter(MonitoringConfig(role_port=0), "teacher-1", worked("judge"))
    found = series(get(exporter.port))
    assert found["dpkd_busy_seconds_total", "1", "scoring", "teacher"] > 0
    assert found["dpkd_idle_seconds_total", "1", "student_responses", "teacher"] > 0
    first = found["dpkd_waiting_seconds", "1", "teacher"]
    assert 0 < first < series(get(exporter.port))["dpkd_waiting_seconds", "1", "teacher"]
    assert found["process_resident_memory_bytes",] > 1e6
    assert get(exporter.port, "/healthz") == "ok\n"
    for path in ("/", "/live.json"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(exporter.port, path)


def test_a_role_has_a_port_of_its_own_and_replicas_on_one_machine_the_next_ones():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = MonitoringConfig(role_port=port - PORT_STEPS["learner"])
        first, second = (RoleExporter(config, f"learner-{i}", BusyClock()) for i in range(2))
        assert len({port, first.port, second.port}) == 3
        assert first.port and second.port and port < first.port < second.port < port + 20


def test_parts_of_one_process_are_served_by_the_driver():
    parts = RoleMetrics()
    parts.add("sampler-0", worked("generate"))
    parts.add("learner-0", worked("forward_backward"))
    hub = MetricsHub(MonitoringConfig(port=0))
    hub.show(parts)
    found = series(get(hub.port))
    hub.close()
    assert found["dpkd_busy_seconds_total", "0", "generating", "sampler"] > 0
    assert found["dpkd_busy_seconds_total", "0", "learner", "learning"] > 0
