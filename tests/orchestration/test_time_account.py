"""A role's seconds over several lives and replicas."""

import pytest

from configs.activities import ORDERS, RESTART
from orchestration import time_account
from orchestration.busy_clock import Reading
from orchestration.time_account import TimeAccount, as_json


@pytest.fixture
def hands(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(time_account.time, "monotonic", lambda: now[0])
    return now


def reading(wall: float, busy: dict[str, float], idle: dict[str, float]) -> Reading:
    waiting = wall - sum(busy.values()) - sum(idle.values())
    return Reading(wall, busy, idle, waiting, [])


def test_replicas_add_up_and_a_wait_under_way_is_for_orders_so_far(hands):
    accounts = [TimeAccount(hands[0]), TimeAccount(hands[0])]
    hands[0] += 10
    accounts[0].add(0, reading(10, {"generating": 6}, {"prompts": 3}))
    accounts[1].add(0, reading(10, {"generating": 1, "loading_weights": 4}, {"prompts": 5}))
    assert as_json(accounts) == {
        "wall_seconds": 20,
        "busy_seconds": 11,
        "idle_seconds": 9,
        "busy": {"generating": 7, "loading_weights": 4},
        "idle": {"prompts": 8, ORDERS: 1},
    }


def test_seconds_between_two_lives_were_spent_waiting_for_the_restart(hands):
    account = TimeAccount(hands[0])
    hands[0] += 4
    account.add(0, reading(4, {"scoring": 4}, {}))
    hands[0] += 16
    account.add(1, reading(6, {"scoring": 5}, {"student_responses": 1}))
    assert account.busy() == {"scoring": 9}
    assert account.idle() == {"student_responses": 1, RESTART: 10, ORDERS: 0}
    assert account.wall_seconds == 20


def test_of_one_life_the_newest_reading_holds(hands):
    account = TimeAccount(hands[0])
    for seconds in (1.0, 2.0, 3.0):
        hands[0] += 1
        account.add(0, reading(seconds, {"learning": seconds}, {}))
    assert account.busy() == {"learning": 3} and account.idle()[RESTART] == 0
