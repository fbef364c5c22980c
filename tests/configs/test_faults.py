"""Failpoints: what arms them, where they strike, and what they cost when they are off."""

import os
import subprocess
import sys
import timeit

import pytest

from configs import faults
from configs.errors import ConfigError
from configs.faults import Fault, failpoint, is_armed, of_restarted, parse_faults


def arm(monkeypatch: pytest.MonkeyPatch, text: str, role: str | None = None) -> None:
    monkeypatch.setattr(faults, "_ARMED", parse_faults(text))
    if role is None:
        monkeypatch.delenv(faults.ROLE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(faults.ROLE_VARIABLE, role)


def strikes(point: str, visits: int) -> list[int]:
    """The visits, from 1, at which an OSError is raised."""
    struck = []
    for visit in range(1, visits + 1):
        try:
            failpoint(point)
        except OSError:
            struck.append(visit)
    return struck


def test_a_value_is_read_part_by_part():
    assert parse_faults("sampler-1:generate.0/7/0:*:kill, queue:put:12:raise,") == (
        Fault("sampler-1", "sampler.generate.0/7/0", None, "kill"),
        Fault("queue", "queue.put", 12, "raise"),
    )
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queue:put:1", "'queue:put:1' is not role:point:nth:action"),
        ("queue:pot:1:kill", "no failpoint queue.pot; there are queue.put, queue.lease, queue.ack"),
        ("quue:put:1:kill", "no failpoint quue.put; there are driver.issued"),
        ("queue:putty:1:kill", "no failpoint queue.putty"),
        ("queue:put:1:explode", "'explode' is no action; there are kill, stop, raise"),
        ("queue:put:0:kill", "'0' is no count from 1, and not [*]"),
        ("queue:put:-1:kill", "'-1' is no count"),
        ("queue:put:often:kill", "'often' is no count"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        parse_faults(text)
    assert str(caught.value).startswith("DPKD_FAULT: ")


def test_a_wrong_value_ends_a_process_before_it_does_anything():
    environ = os.environ | {"DPKD_FAULT": "queue:put:1"}
    command = [sys.executable, "-c", "import configs.faults"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 1
    assert "is not role:point:nth:action" in done.stderr


def test_it_strikes_at_the_visit_that_is_named_and_at_no_other(monkeypatch):
    arm(monkeypatch, "queue:put:3:raise")
    assert strikes("queue.put", 6) == [3]
    arm(monkeypatch, "queue:put:3:raise")
    assert strikes("queue.lease", 6) == []


def test_a_star_strikes_at_every_visit(monkeypatch):
    arm(monkeypatch, "queue:put:*:raise")
    assert strikes("queue.put", 3) == [1, 2, 3]


def test_two_faults_at_one_point_each_count_for_themselves(monkeypatch):
    arm(monkeypatch, "queue:put:2:raise,queue:put:4:raise")
    assert strikes("queue.put", 5) == [2, 4]


def test_a_detail_is_a_failpoint_of_its_own(monkeypatch):
    arm(monkeypatch, "sampler:generate.0/7/0:1:nan,sampler:generate:2:nan")
    assert failpoint("sampler.generate") is None
    assert failpoint("sampler.generate", "0/6/0") is None
    assert failpoint("sampler.generate", "0/7/0") == "nan"
    assert failpoint("sampler.generate") == "nan"


@pytest.mark.parametrize(
    ("armed", "here", "strikes_here"),
    [
        ("sampler", "sampler-0", True),
        ("sampler", "sampler-1", True),
        ("sampler-1", "sampler-1", True),
        ("sampler-1", "sampler-0", False),
        ("sampler", "teacher-0", False),
        ("sampler-1", None, True),
    ],
)
def test_it_strikes_in_the_role_that_is_named(monkeypatch, armed, here, strikes_here):
    arm(monkeypatch, f"{armed}:generate:1:raise", here)
    assert strikes("sampler.generate", 1) == [1] * strikes_here


def test_what_there_is_to_spoil_is_spoiled_by_the_caller(monkeypatch):
    arm(monkeypatch, "learner:forward:1:nan,learner:saved:1:truncate")
    assert (failpoint("learner.forward"), failpoint("learner.saved")) == ("nan", "truncate")
    assert (failpoint("learner.forward"), failpoint("learner.saved")) == (None, None)


def test_raise_is_a_full_disk(monkeypatch):
    arm(monkeypatch, "driver:checkpoint_filled:1:raise")
    with pytest.raises(OSError, match=r"injected at driver\.checkpoint_filled") as caught:
        failpoint("driver.checkpoint_filled")
    assert caught.value.errno == 28


def test_kill_is_sigkill():
    environ = os.environ | {"DPKD_FAULT": "driver:issued:2:kill"}
    code = "from configs.faults import failpoint as f; [print(f('driver.issued')) for _ in 'abc']"
    done = subprocess.run(
        [sys.executable, "-uc", code], capture_output=True, text=True, env=environ, check=False
    )
    assert (done.returncode, done.stdout) == (-9, "None\n")


def test_a_restarted_process_gets_what_strikes_at_every_visit():
    assert of_restarted("sampler:load:1:kill,sampler:generate:*:kill") == "sampler:generate:*:kill"
    assert of_restarted("sampler:load:1:kill") == ""


def test_unarmed_it_costs_next_to_nothing(monkeypatch):
    monkeypatch.setattr(faults, "_ARMED", ())
    assert not is_armed()
    assert failpoint("queue.put") is None
    seconds = min(timeit.repeat(lambda: failpoint("queue.put"), number=10_000, repeat=5))
    assert seconds / 10_000 < 5e-6


def test_every_failpoint_says_where_it_stands():
    roles = {"driver", "sampler", "teacher", "learner", "queue"}
    assert {point.split(".")[0] for point in faults.POINTS} == roles
    assert all(place and not place.endswith(".") for place in faults.POINTS.values())
