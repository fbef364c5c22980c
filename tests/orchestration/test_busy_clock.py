"""Every second of a part is booked: once, and under the name of what it was spent on."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.activities import ACTIVITIES, BUSY_WITH, IDLE_FOR, ORDERS, TURN
from orchestration import busy_clock
from orchestration.busy_clock import BusyClock


class Hands:
    """A clock's hands, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(busy_clock.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(busy_clock.time, "time", lambda: self.now + 1000)


@pytest.fixture
def hands(monkeypatch):
    return Hands(monkeypatch)


def test_work_is_booked_by_what_was_done_and_waits_by_what_ended_them(hands):
    clock = BusyClock()
    hands.now += 2
    clock.begin("judge")
    hands.now += 3
    clock.end("judge")
    hands.now += 5
    clock.begin("respond")
    hands.now += 7
    reading = clock.read(take_spans=True)
    assert reading.busy == {"scoring": 3, "answering": 7}, "the call under way is counted"
    assert reading.idle == {"student_responses": 2, "prompts": 5}
    assert (reading.wall_seconds, reading.waiting_seconds) == (17, 0)
    assert [(span.start, span.seconds, span.busy, span.what) for span in reading.spans] == [
        (1100, 2, False, "student_responses"),
        (1102, 3, True, "scoring"),
        (1105, 5, False, "prompts"),
    ]
    assert clock.read(take_spans=True).spans == [], "taken once"
    clock.end("respond")
    hands.now += 11
    assert clock.read().waiting_seconds == 11


def test_a_wait_for_one_s_turn_is_told_from_the_wait_for_work(hands):
    clock = BusyClock()
    clock.begin("generate")
    clock.end("generate")
    came = hands.now + 4
    hands.now += 10
    clock.begin("generate", came)
    assert clock.read().idle == {"prompts": 4, TURN: 6}


def test_what_came_while_the_part_worked_waited_for_nothing(hands):
    clock = BusyClock()
    clock.begin("generate")
    came = hands.now + 1
    hands.now += 5
    clock.end("generate")
    clock.begin("generate", came)
    assert clock.read().idle == {}


def test_a_clock_set_to_zero_in_the_middle_of_a_call_counts_the_rest_of_it(hands):
    clock = BusyClock()
    clock.begin("forward_backward")
    hands.now += 5
    clock.restart()
    hands.now += 2
    clock.end("forward_backward")
    assert clock.read() == (2, {"learning": 2}, {}, 0, [])
    assert [span.seconds for span in clock.read(take_spans=True).spans] == [7], (
        "the timeline is whole"
    )


def test_seconds_of_calls_that_overlap_are_the_oldest_one_s(hands):
    clock = BusyClock()
    clock.begin("generate")
    hands.now += 1
    clock.begin("load_weights")
    hands.now += 2
    assert clock.read().busy == {"generating": 3}
    clock.end("generate")
    hands.now += 4
    clock.begin("generate")
    clock.end("load_weights")
    hands.now += 8
    clock.end("generate")
    hands.now += 16
    reading = clock.read(take_spans=True)
    assert reading.busy == {"generating": 11, "loading_weights": 4}
    assert (reading.idle, reading.waiting_seconds, reading.wall_seconds) == ({}, 16, 31)
    assert [(span.start, span.seconds) for span in reading.spans] == [
        (1100, 3),
        (1103, 4),
        (1107, 8),
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*ACTIVITIES, "statistics"]),
            st.floats(0, 1e3),
            st.floats(0, 1e3),
            st.none() | st.floats(0, 2e3),
        ),
        max_size=20,
    )
)
def test_the_parts_add_up_to_the_wall_clock(calls):
    with pytest.MonkeyPatch.context() as patch:
        hands = Hands(patch)
        clock = BusyClock()
        for method, waited, worked, before in calls:
            hands.now += waited
            clock.begin(method, None if before is None else hands.now - before)
            hands.now += worked
            clock.end(method)
            reading = clock.read()
            spent = sum(reading.busy.values()) + sum(reading.idle.values())
            assert spent + reading.waiting_seconds == pytest.approx(reading.wall_seconds)
            assert min([*reading.busy.values(), *reading.idle.values()], default=1) > 0
            assert set(reading.busy) <= set(BUSY_WITH) and set(reading.idle) <= set(IDLE_FOR)


def test_a_part_that_nobody_reads_keeps_its_newest_spans_only(monkeypatch):
    monkeypatch.setattr(busy_clock, "MOST_SPANS", 4)
    clock = BusyClock()
    for method in ["generate", "load_weights"] * 5:
        clock.begin(method)
        time.sleep(1e-4)
        clock.end(method)
    spans = clock.read(take_spans=True).spans
    assert len(spans) == 4 and spans[-1].method == "load_weights"


def test_it_is_read_from_another_thread_while_the_part_works():
    clock = BusyClock()
    going = threading.Event()

    def work() -> None:
        clock.begin("nll")
        going.set()
        time.sleep(0.05)
        clock.end("nll")

    thread = threading.Thread(target=work)
    thread.start()
    going.wait()
    time.sleep(0.01)
    assert clock.read().busy["evaluating"] > 0
    thread.join()
    assert clock.read().idle.get(ORDERS, 0.0) < 0.05
