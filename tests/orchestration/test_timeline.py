"""`timeline.json` is what trace viewers read, also when a run is cut off or goes on."""

import json
import math

from orchestration.busy_clock import Span
from orchestration.timeline import Timeline

WORK = Span(1700000000.25, 0.5, True, "generating", "generate")
WAIT = Span(1700000000.75, 0.25, False, "weights", "load_weights")


def events(folder):
    return json.loads((folder / "timeline.json").read_text())


def test_work_and_waits_are_complete_events_in_microseconds_in_a_row_of_their_part(tmp_path):
    timeline = Timeline(tmp_path)
    timeline.spans("sampler-0", [WORK, WAIT])
    timeline.spans("learner-0", [WAIT])
    timeline.levels(1700000001.0, {"loss": 0.5, "queue_depth": math.nan})
    timeline.close()
    timeline.close()
    told = events(tmp_path)
    names = {one["args"]["name"]: one["pid"] for one in told if one["ph"] == "M"}
    assert set(names) == {"sampler-0", "learner-0", "driver"}
    spans = [one for one in told if one["ph"] == "X"]
    assert [(one["name"], one["cat"], one["pid"]) for one in spans] == [
        ("generating", "busy", names["sampler-0"]),
        ("waits for weights", "idle", names["sampler-0"]),
        ("waits for weights", "idle", names["learner-0"]),
    ]
    assert (spans[0]["ts"], spans[0]["dur"]) == (1700000000250000, 500000)
    (level,) = [one for one in told if one["ph"] == "C"]
    assert (level["name"], level["args"]) == ("loss", {"value": 0.5}), "NaN is no JSON"


def test_a_run_that_goes_on_adds_to_what_its_killed_life_left(tmp_path):
    first = Timeline(tmp_path)
    first.spans("sampler-0", [WORK])
    half = (tmp_path / "timeline.json").read_text() + ',\n{"name": "gene'
    first.close()
    (tmp_path / "timeline.json").write_text(half)
    second = Timeline(tmp_path)
    second.spans("sampler-0", [WAIT])
    second.close()
    told = events(tmp_path)
    assert [one["name"] for one in told] == ["process_name", "generating", "waits for weights"]
    assert len({one["pid"] for one in told}) == 1


def test_one_that_saw_nothing_is_an_empty_list(tmp_path):
    Timeline(tmp_path).close()
    assert events(tmp_path) == []
