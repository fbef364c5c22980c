"""Real processes, small ones: exit codes, what they print, and how signals end them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from orchestration.processes import Processes

WAITS = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
SAVES = (
    "import signal, sys; "
    "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143))); "
)


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def _until_up(log: Path) -> None:
    while not _is_up(log):  # noqa: ASYNC110  another process says so, no event of this loop
        await asyncio.sleep(0.02)


def _is_up(log: Path) -> bool:
    return log.exists() and "up" in log.read_text()


def _signalled(log: Path, code: str, *signals: signal.Signals) -> tuple[Processes, int | None]:
    """Run ``code``, send this process ``signals`` once it is up; return what came of it."""

    async def story() -> tuple[Processes, int | None]:
        with Processes() as processes:
            processes.start("child", _python(code), log)
            await _until_up(log)
            for number in signals:
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.1)
            return processes, (await asyncio.wait_for(processes.next(), 20))[1]

    return asyncio.run(story())


def test_commands_end_in_their_own_time_with_their_own_codes(tmp_path):
    async def story() -> list[tuple[str, int | None]]:
        with Processes() as processes:
            processes.start("slow", _python("import time; time.sleep(0.5)"), tmp_path / "a")
            processes.start("quick", _python("raise SystemExit(3)"), tmp_path / "b")
            assert processes.running == ["slow", "quick"]
            return [await processes.next(), await processes.next()]

    assert asyncio.run(story()) == [("quick", 3), ("slow", 0)]


def test_the_log_has_both_streams_and_an_answer_of_its_own_only_the_output(tmp_path):
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"

    async def story() -> None:
        with Processes() as processes:
            processes.start("both", _python(code), tmp_path / "both")
            processes.start("apart", _python(code), tmp_path / "err", answer=tmp_path / "out")
            await processes.next()
            await processes.next()

    asyncio.run(story())
    assert (tmp_path / "both").read_text() == "out\nerr\n"
    assert (tmp_path / "err").read_text() == "err\n"
    assert (tmp_path / "out").read_text() == "out\n"


def test_the_environment_is_the_one_given(tmp_path):
    async def story() -> None:
        with Processes({"OMP_NUM_THREADS": "1"}) as processes:
            code = "import os; print(os.environ['OMP_NUM_THREADS'], 'HOME' in os.environ)"
            processes.start("child", _python(code), tmp_path / "log")
            await processes.next()

    asyncio.run(story())
    assert (tmp_path / "log").read_text() == "1 False\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_a_child_finish_what_it_does_on_sigterm(tmp_path, number):
    processes, code = _signalled(tmp_path / "log", SAVES + WAITS, number)
    assert processes.signal == number
    assert code is None
    assert (tmp_path / "log").read_text() == "up\nsaved\n"


def test_a_child_that_heeds_no_sigterm_is_killed_at_the_third_signal(tmp_path):
    before = {child.pid for child in psutil.Process().children()}
    three = (signal.SIGINT, signal.SIGINT, signal.SIGINT)
    _, code = _signalled(tmp_path / "log", STUBBORN, *three)
    assert code is None
    assert {child.pid for child in psutil.Process().children()} <= before
