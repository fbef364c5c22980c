import json
import logging
import math
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from configs.metrics import CATALOGUE, DRIVER_METRICS
from configs.monitoring import MonitoringConfig
from orchestration.account import Balance
from orchestration.exporter import MetricsHub

STEP = {
    "loss": 0.7,
    "reward_margin": -0.25,
    "reverse_kl_k1": 3.5,
    "tokens": 640.0,
    "pairs": 32,
    "nonfinite": 0,
    "seconds": 0.2,
    "lag": 1,
    "response_length_student": 11.5,
}
QUEUE = {"depth": 5, "leased": 32, "stale": 0, "redrawing": 1, "bytes": 4096, "duplicates": 2}
BALANCE = Balance(issued=70, consumed=32, in_flight=37, dropped={"poison": 1})


def hub(folder: Path | None = None, port: int = 0) -> MetricsHub:
    return MetricsHub(MonitoringConfig.model_validate({"port": port}), folder)


def get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(url, timeout=5).read().decode()


def families(metrics: MetricsHub) -> dict:
    text = get(f"http://127.0.0.1:{metrics.port}/metrics")
    found = {family.name: family for family in text_string_to_metric_families(text)}
    process = [name for name in found if name.startswith("process_")]
    assert "process_resident_memory_bytes" in process
    return {name: family for name, family in found.items() if name not in process}


def samples(metrics: MetricsHub) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families(metrics).values()
        for sample in family.samples
    }


def test_every_family_is_in_the_catalogue_and_the_reverse_from_the_start() -> None:
    metrics = hub()
    exported = families(metrics)
    metrics.close()
    # The parser names counters without their suffix.
    assert set(exported) == {metric.name.removesuffix("_total") for metric in DRIVER_METRICS}
    types = {"info": "gauge"}
    for metric in DRIVER_METRICS:
        family = exported[metric.name.removesuffix("_total")]
        assert family.type == types.get(metric.kind, metric.kind)
        assert family.documentation == metric.help
        if metric.kind == "gauge" or metric.key == "stage":
            assert family.samples == [], "a gauge that was never measured has no value"
        else:
            assert family.samples, metric.name


def test_every_series_of_the_catalogue_can_be_exported_and_nothing_else_is() -> None:
    metrics = hub()
    for metric in DRIVER_METRICS:
        labels = {label: (values or ("x",))[0] for label, values in metric.labels.items()}
        write = metrics.observe if metric.kind == "histogram" else metrics.set
        write(metric.key, 1.0, **labels)
    exported = samples(metrics)
    metrics.close()
    names = {metric.name: metric for metric in DRIVER_METRICS}
    for name, *labels in exported:
        base = name
        for suffix in ("_bucket", "_sum", "_count"):
            if name not in names:
                base = base.removesuffix(suffix)
        assert base in names, f"{name} is not in the catalogue"
        assert {label for label, _ in labels} - {"le"} == set(names[base].labels)
    assert names.keys() <= {
        name.removesuffix("_count") if name.removesuffix("_count") in names else name
        for name, *_ in exported
    }


def test_a_step_moves_the_series_it_names() -> None:
    metrics = hub()
    for _ in range(2):
        metrics.record_step(3, STEP, [0, 1, 1], BALANCE, QUEUE)
    exported = samples(metrics)
    metrics.close()
    assert exported["dpkd_loss",] == 0.7
    assert exported["dpkd_reward_margin",] == -0.25
    assert exported["dpkd_reverse_kl_k1_nats",] == 3.5
    assert exported["dpkd_step",] == 3
    assert exported["dpkd_pairs_total",] == 64, "counters add up"
    assert exported["dpkd_tokens_total", ("role", "learner")] == 1280
    assert exported["dpkd_response_length_tokens", ("role", "student")] == 11.5
    assert exported["dpkd_policy_lag_max",] == 1
    assert exported["dpkd_policy_lag_steps_bucket", ("le", "0")] == 2
    assert exported["dpkd_policy_lag_steps_bucket", ("le", "1")] == 6
    assert exported["dpkd_policy_lag_steps_bucket", ("le", "+Inf")] == 6
    assert exported["dpkd_policy_lag_steps_sum",] == 4
    assert exported["dpkd_policy_lag_steps_count",] == 6
    assert exported["dpkd_step_seconds_bucket", ("le", "0.1")] == 0
    assert exported["dpkd_step_seconds_bucket", ("le", "0.3")] == 2
    assert exported["dpkd_tuples_total", ("state", "issued")] == 70, "totals are set, not added"
    assert exported["dpkd_tuples_total", ("state", "duplicate")] == 2
    assert exported["dpkd_dropped_tuples_total", ("reason", "poison")] == 1
    assert exported["dpkd_dropped_tuples_total", ("reason", "stale")] == 0
    assert exported["dpkd_queue_depth_tuples", ("state", "leased")] == 32
    assert exported["dpkd_queue_bytes",] == 4096


def test_a_stage_begins_with_no_number_of_the_one_before(tmp_path) -> None:
    metrics = hub()
    for stage, consumed in (("teacher-sft", 70), ("run", 8)):
        (tmp_path / stage).mkdir()
        metrics.log_to(tmp_path / stage)
        assert ("dpkd_loss",) not in samples(metrics)
        if stage == "teacher-sft":
            metrics.evaluated("after", 3, {"nll_nats": 6.0})
        metrics.record_step(1, STEP, balance=replace(BALANCE, consumed=consumed))
    exported = samples(metrics)
    metrics.close()
    assert not [name for name, *_ in exported if name == "dpkd_evaluation_score"]
    assert exported["dpkd_tuples_total", ("state", "consumed")] == 8
    assert exported["dpkd_stage_info", ("stage", "run")] == 1
    assert ("dpkd_stage_info", ("stage", "teacher-sft")) not in exported


def test_nan_stays_nan_and_is_counted() -> None:
    metrics = hub()
    metrics.set("loss", math.nan)
    metrics.set("grad_norm", math.inf)
    metrics.observe("step_seconds", math.nan)
    metrics.inc("pairs", math.nan)
    exported = samples(metrics)
    assert math.isnan(exported["dpkd_loss",])
    assert exported["dpkd_grad_norm",] == math.inf
    assert exported["dpkd_step_seconds_count",] == 0
    assert exported["dpkd_pairs_total",] == 0
    assert exported["dpkd_nonfinite_values_total",] == 4
    metrics.set("loss", 0.5)
    assert samples(metrics)["dpkd_loss",] == 0.5
    metrics.close()


def test_each_step_is_one_strict_json_line_with_null_for_nan(tmp_path) -> None:
    metrics = hub(tmp_path)
    metrics.record_step(1, {**STEP, "loss": math.nan, "reverse_kl_k1": -math.inf}, queue=QUEUE)
    metrics.record_step(2, STEP)
    metrics.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    first, second = (json.loads(line, parse_constant=refuse) for line in text.splitlines())
    assert (first["step"], first["loss"], first["reverse_kl_k1"]) == (1, None, None)
    assert first["nonfinite_keys"] == ["loss", "reverse_kl_k1"]
    assert first["queue_depth"] == 5
    assert (second["step"], second["loss"]) == (2, 0.7)
    assert "nonfinite_keys" not in second


def test_healthz_answers_and_other_paths_do_not() -> None:
    metrics = hub()
    base = f"http://127.0.0.1:{metrics.port}"
    assert get(base + "/healthz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(base + "/nowhere")
    metrics.close()


def test_a_port_in_use_is_replaced_with_a_warning(caplog) -> None:
    with socket.socket() as taken, caplog.at_level(logging.WARNING):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        metrics = hub(port=port)
        assert metrics.port not in (None, port)
        assert get(f"http://127.0.0.1:{metrics.port}/healthz") == "ok\n"
        metrics.close()
    assert f"port {port} is in use: metrics are served on 127.0.0.1:" in caplog.text


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_run_goes_on_when_no_port_can_be_opened(host, tmp_path, caplog) -> None:
    metrics = MetricsHub(MonitoringConfig.model_validate({"host": host}), tmp_path)
    assert metrics.port is None
    assert "metrics are not served" in caplog.text
    metrics.record_step(1, STEP)
    metrics.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_close_frees_the_port_even_after_a_scrape() -> None:
    first = hub()
    port = first.port
    assert port is not None
    get(f"http://127.0.0.1:{port}/metrics")
    first.close()
    first.close()
    with pytest.raises(urllib.error.URLError):
        get(f"http://127.0.0.1:{port}/healthz")
    second = hub(port=port)
    assert second.port == port
    second.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda metrics: metrics.set("no_such_metric", 1),
        lambda metrics: metrics.inc("loss"),
        lambda metrics: metrics.set("tokens", 1),
        lambda metrics: metrics.set("tokens", 1, role="driver"),
        lambda metrics: metrics.inc("pairs", -1),
        lambda metrics: metrics.set("busy_seconds", 1, role="sampler", replica="0", activity="x"),
    ],
)
def test_what_the_catalogue_does_not_say_is_a_programmer_error(write) -> None:
    metrics = hub()
    with pytest.raises(AssertionError):
        write(metrics)
    metrics.close()


def test_build_info_names_the_versions() -> None:
    metrics = hub()
    (info,) = families(metrics)[CATALOGUE["build"].name].samples
    metrics.close()
    assert info.value == 1
    assert info.labels["torch"].startswith("2.")
    assert info.labels["vllm"] != "none"
