"""What it costs to measure: the share of a run's loops that goes into metrics.

    python benchmarks/metrics.py [--steps 150]

A difference of one per cent between two runs drowns in this machine's noise, so the seconds are
counted where they are spent: in every call into the metrics while the loops turn, and in
answering a scrape of `/metrics` and of the live page every second. Exit code 1 above the limit.
"""

import argparse
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
LIMIT = 0.01


class Meter:
    """Adds up the seconds of calls; one inside another is counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.turning = False
        self._lock = threading.Lock()
        self._inside = threading.local()

    def wrap(self, owner: Any, name: str) -> None:
        """Measure every call of a method, from now on."""
        setattr(owner, name, self._measured(getattr(owner, name)))

    def _measured(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            if getattr(self._inside, "value", False):
                return function(*args, **named)
            self._inside.value, began = True, time.thread_time()
            try:
                return function(*args, **named)
            finally:
                self._inside.value = False
                if self.turning:
                    with self._lock:
                        self.seconds += time.thread_time() - began

        return call


def main() -> int:
    """Measure one run; returns the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150, help="learner steps of the run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        meter, loops = _run(options.steps, output)
    share = meter.seconds / loops
    print(f"{meter.seconds:.3f} s of {loops:.1f} s in metrics: {share:.2%}; limit {LIMIT:.0%}")
    return int(share > LIMIT)


def _run(steps: int, output: str) -> tuple[Meter, float]:
    """Run the quickstart in this process; returns the meter and the seconds of its loops."""
    from configs.load import load
    from orchestration.busy_clock import BusyClock
    from orchestration.exporter import MetricsHub
    from orchestration.job import run_job
    from orchestration.live import LiveFeed
    from orchestration.metrics_server import MetricsServer
    from orchestration.pipeline import Pipeline

    meter = Meter()
    for owner, names in (
        (MetricsHub, ("set", "inc", "observe", "record_step", "evaluated", "spans")),
        (BusyClock, ("begin", "end", "read")),
        (LiveFeed, ("clocks", "evaluated", "samples")),
    ):
        for name in names:
            meter.wrap(owner, name)
    spans: list[float] = []
    turn, serve = Pipeline.run, MetricsServer.__init__

    async def timed(pipeline: Pipeline) -> None:
        meter.turning = pipeline.config.name == "measured"
        began = time.monotonic()
        try:
            await turn(pipeline)
        finally:
            if meter.turning:
                spans.append(time.monotonic() - began)
            meter.turning = False

    def served(server: MetricsServer, *args: Any, **named: Any) -> None:
        serve(server, *args, **named)
        assert server._server is not None
        meter.wrap(server._server.RequestHandlerClass, "do_GET")
        threading.Thread(target=_scrape, args=(server.port, meter), daemon=True).start()

    Pipeline.run, MetricsServer.__init__ = timed, served  # type: ignore[method-assign]
    settings = ["cluster.local=true", "monitoring.port=0", "name=measured", f"output={output}"]
    assert run_job(load("quickstart", [*settings, f"learner.steps={steps}"])) == 0
    return meter, sum(spans)


def _scrape(port: int | None, meter: Meter) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        time.sleep(1)
        if meter.turning:
            for path in ("metrics", "live.json?edition=-1&held=0"):
                opener.open(f"http://127.0.0.1:{port}/{path}", timeout=5).read()


if __name__ == "__main__":
    sys.exit(main())
