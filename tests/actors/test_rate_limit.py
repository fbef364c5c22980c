"""Takes keep their distance, and an idle time earns no burst."""

from actors.rate_limit import RateLimit


class Clock:
    """Time that passes only by sleeping, and by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def limit(per_minute: float | None, clock: Clock) -> RateLimit:
    return RateLimit(per_minute, clock=lambda: clock.now, sleep=clock.sleep)


def test_the_first_take_is_free_and_the_next_ones_wait_for_their_turn():
    clock = Clock()
    rate = limit(30, clock)
    for _ in range(3):
        rate.take()
    assert clock.slept == [2.0, 2.0]


def test_time_that_passed_anyway_is_not_waited_for_again():
    clock = Clock()
    rate = limit(30, clock)
    rate.take()
    clock.now += 1.5
    rate.take()
    assert clock.slept == [0.5]


def test_an_idle_time_earns_no_burst():
    clock = Clock()
    rate = limit(60, clock)
    rate.take()
    clock.now += 1000.0
    rate.take()
    rate.take()
    assert clock.slept == [1.0]


def test_takes_that_come_at_one_moment_get_turns_in_a_row():
    waits: list[float] = []
    rate = RateLimit(60, clock=lambda: 7.0, sleep=waits.append)
    for _ in range(4):
        rate.take()
    assert waits == [1.0, 2.0, 3.0]


def test_without_a_bound_nothing_waits():
    clock = Clock()
    rate = limit(None, clock)
    for _ in range(100):
        rate.take()
    assert clock.slept == []
