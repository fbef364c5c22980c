"""What the recorder counts beside steps."""

from types import SimpleNamespace
from typing import Any

from configs.monitoring import MonitoringConfig
from configs.wire import Uid
from orchestration.exporter import MetricsHub
from orchestration.recorder import Recorder

UIDS = [Uid(0, 1, 0), Uid(0, 2, 0)]


def test_numbers_that_are_none_are_counted_wherever_they_are_found():
    said: list[str] = []
    dumped: list[str] = []
    hub = MetricsHub(MonitoringConfig(port=0))
    parts: Any = {
        "progress": SimpleNamespace(announce=said.append),
        "folder": SimpleNamespace(dump=lambda name, _: dumped.append(name)),
        "ledger": None,
    }
    recorder = Recorder(hub, **parts)
    recorder.skipped(4, UIDS, "the loss is NaN")
    recorder.poisoned(UIDS)
    value = hub._registry.get_sample_value
    assert value("dpkd_nonfinite_values_total") == 3, "a step and two tuples"
    assert value("dpkd_skipped_steps_total") == 1
    assert dumped == ["nonfinite-after-step-4.json"] and "the loss is NaN" in said[0]
    hub.close()


def test_the_step_is_known_before_the_first_is_made():
    hub = MetricsHub(MonitoringConfig(port=0))
    nothing: Any = None
    Recorder(hub, nothing, nothing, nothing).began(12)
    assert hub._registry.get_sample_value("dpkd_step") == 12
    hub.close()
