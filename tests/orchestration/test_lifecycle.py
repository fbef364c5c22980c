"""Signals to a process that runs an event loop."""

import asyncio
import os
import signal

import pytest

from orchestration.lifecycle import StopRequest


def _story(signals: int, *, finish: bool) -> tuple[StopRequest, list[str], bool]:
    said: list[str] = []

    async def run() -> tuple[StopRequest, bool]:
        finished = asyncio.Event()
        stop = StopRequest(said.append)
        try:
            with stop:
                stop.on_first_signal(finished.set if finish else None)
                for _ in range(signals):
                    os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.sleep(0.01)
                await asyncio.wait_for(finished.wait(), 1)
                if signals > 1:
                    await asyncio.sleep(1)
        except asyncio.CancelledError:
            return stop, True
        return stop, False

    stop, cancelled = asyncio.run(run())
    return stop, said, cancelled


def test_the_first_signal_asks_to_finish_the_step():
    stop, said, cancelled = _story(1, finish=True)
    assert not cancelled
    assert stop.exit_code == 143
    assert "finishing the step" in said[0]


@pytest.mark.parametrize(("signals", "finish"), [(2, True), (1, False)])
def test_the_second_signal_or_one_before_any_step_stops_at_once(signals, finish):
    _, said, cancelled = _story(signals, finish=finish)
    assert cancelled
    assert said[-1] == "SIGTERM: stopping at once"


def test_without_a_signal_the_exit_code_is_zero():
    assert StopRequest(print).exit_code == 0
