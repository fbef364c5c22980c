"""Two minutes of random faults against a run on Ray, one every few seconds: `make test-faults`."""

import contextlib
import os
import random
import signal
import time

import pytest

from tests.faults.faulty_run import FaultyRun

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("DPKD_SOAK" not in os.environ, reason="a soak: make test-faults runs it"),
]
ROLES = ("sampler-0", "sampler-1", "teacher-0", "learner-0", "queue")
SETTINGS = (
    *("student.replicas=2", "replay.max_policy_lag=2", "cluster.local_cpus=4"),
    *("supervision.max_restarts=1000", "supervision.backoff_seconds=0.1"),
)


class Nemesis:
    """Kills or stops a random part again and again, then asks the run to stop."""

    def __init__(self, run: FaultyRun, seed: int, *, seconds: float) -> None:
        self.run = run
        self.seconds = seconds
        self.done: list[str] = []
        self._draw = random.Random(seed)
        self._began: float | None = None
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now if self.run.step() >= 1 else None
            return
        if now - self._began > self.seconds:
            if "stopped" not in self.done:
                self.run.process.send_signal(signal.SIGINT)
                self.done.append("stopped")
        elif now >= self._next:
            self._strike()
            self._next = now + self._draw.uniform(4, 10)

    def _strike(self) -> None:
        role = self._draw.choice(ROLES)
        number = signal.SIGSTOP if self._draw.random() < 0.2 else signal.SIGKILL
        pid = self.run.pid_of(role)
        if pid:
            with contextlib.suppress(ProcessLookupError):  # dead already, of the last strike
                os.kill(pid, number)
            self.done.append(f"{number.name} {role}")


def test_two_minutes_of_random_faults(tmp_path, report, capsys):
    seed = (
        int(os.environ["DPKD_SOAK"]) if os.environ["DPKD_SOAK"] != "1" else time.time_ns() % 10**6
    )
    with capsys.disabled():
        print(f"\nsoak: seed {seed} (DPKD_SOAK={seed} makes the same strikes)")
    run = FaultyRun(tmp_path, *SETTINGS, "learner.steps=5000", name="soak")
    nemesis = Nemesis(run, seed, seconds=120)
    assert run.wait(nemesis, timeout=900) == 130, (nemesis.done, run.tail())
    run.verify()
    # What is in flight at a stop is not lost: a resume consumes it.
    steps = run.step() + 8
    on = FaultyRun(tmp_path, *SETTINGS, f"learner.steps={steps}", "resume=auto", name="soak")
    assert on.wait() == 0, on.tail()
    on.verify()
    strikes = len(nemesis.done) - 1
    assert strikes >= 5, nemesis.done
    report(on.outcome(f"soak: {strikes} random kills and stops", f"seed {seed}"))
    assert on.survivors() == []
