"""What a resume takes back of the logs."""

import json
from pathlib import Path

import pytest

from orchestration.metrics_log import MetricsLog
from orchestration.rewind import LOGS, rewind_logs


def lines(*steps: int, **more: object) -> str:
    return "".join(json.dumps({"step": step, **more}) + "\n" for step in steps)


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_every_log_ends_with_the_step_that_is_gone_back_to(tmp_path):
    assert LOGS == ("metrics.jsonl", "samples.jsonl", "scores.jsonl")
    for name in LOGS:
        (tmp_path / name).write_text(lines(1, 2, 2, 3, 4))
    rewind_logs(tmp_path, 2)
    assert [steps_in(tmp_path / name) for name in LOGS] == [[1, 2, 2]] * 3


def test_to_go_back_to_the_beginning_empties_them_but_for_what_was_before_it(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(lines(1, 2))
    (tmp_path / "scores.jsonl").write_text(lines(0, 0, 2, when="x"))
    rewind_logs(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert steps_in(tmp_path / "scores.jsonl") == [0, 0]


@pytest.mark.parametrize("tail", ['{"step": 3', "garbage\n", '{"loss": 1}\n', "[]\n"])
def test_what_is_no_line_of_ours_goes_with_all_behind_it(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(1, 2) + tail + lines(3))
    rewind_logs(tmp_path, 9)
    assert steps_in(path) == [1, 2]


def test_a_last_line_that_lacks_its_end_is_torn_though_it_can_be_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(1, 2) + '{"step": 3}')
    rewind_logs(tmp_path, 3)
    assert path.read_text() == lines(1, 2)


def test_a_log_that_is_open_goes_on_at_its_new_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.write(step=step)
    rewind_logs(tmp_path, 1)
    log.write(step=2)
    log.close()
    assert steps_in(path) == [1, 2]


def test_other_files_stay_and_missing_ones_are_no_error(tmp_path):
    (tmp_path / "events.jsonl").write_text(lines(1, 2, 3))
    rewind_logs(tmp_path, 1)
    assert steps_in(tmp_path / "events.jsonl") == [1, 2, 3]
