"""The live page and the report, as a real Chromium shows them."""

import json
import signal
import time
from typing import Any

import pytest

from orchestration.report import main
from tests.e2e.browser import Opened, browser, find_chromium
from tests.e2e.tiny import TinyRun
from tests.orchestration.run_folders import STEP, told

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        find_chromium() is None, reason="Chromium is not installed: see `make tools`"
    ),
]


def points(opened: Opened) -> dict[str, int]:
    """Return of each chart that is shown how many points its longest line has."""
    return opened.page.eval_on_selector_all(
        "figure",
        """figures => Object.fromEntries(figures.map(figure => [figure.dataset.title, Math.max(
          0, ...[...figure.querySelectorAll("path")].map(path => +path.dataset.points))]))""",
    )


def watched(run: TinyRun) -> str | None:
    """Return the address of the run's page once its own steps have begun."""
    try:
        status = run.json("status.json")
    except (OSError, json.JSONDecodeError):
        return None
    return status["metrics_url"].removesuffix("metrics") if status["step"] >= 3 else None


def test_the_live_page_moves_while_a_run_goes_on(tmp_path):
    run = TinyRun(tmp_path, "cluster.local=true", "learner.steps=5000", name="live")
    seen: list[dict[str, int]] = []

    with browser() as opened:

        def look() -> None:
            url = watched(run)
            if seen or url is None:
                return
            opened.page.goto(url)
            opened.page.wait_for_selector("path[data-points]")
            seen.append(points(opened))
            time.sleep(10)
            seen.append(points(opened))
            assert opened.page.inner_text("#stage") == "live"
            assert "before" in opened.page.inner_text("#scores")
            assert opened.page.inner_text("#samples") != "none yet"
            opened.page.screenshot(path=str(tmp_path / "live.png"), full_page=True)
            assert opened.complaints == []
            assert {address.startswith((url, "data:")) for address in opened.requests} == {True}
            run.process.send_signal(signal.SIGINT)

        assert run.wait(look) == 130, run.tail()
        opened.page.wait_for_selector("#state.gone")
        assert "does not answer" in opened.page.inner_text("#state")
    before, after = seen
    charts = {"implicit reward", "reverse KL, nats/response", "loss", "tuples in the queue"}
    assert charts | {"policy lag, steps", "busy share"} <= set(after)
    for title, count in after.items():
        assert count > before.get(title, 0), title


REPORTS: dict[str, Any] = {
    "whole": {},
    "of one step": {"steps": 1},
    "with NaN": {"metrics": [{"step": 1, **STEP}, {"step": 2, "loss": None}, {"step": 3, **STEP}]},
    "without evaluation": {"scores": []},
    "failed": {"state": "failed", "reason": "no room on the disk", "steps": 4},
    "crashed": {"state": "running", "steps": 4},
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_shows_pictures_and_asks_nobody(tmp_path, name):
    run = told(tmp_path / "run", **REPORTS[name])
    assert main([str(run)]) == 0
    page = (run / "report.html").as_uri()
    with browser() as opened:
        opened.page.goto(page)
        inked = opened.inked()
        assert len(inked) >= 2 and min(inked) > 500, inked
        assert opened.complaints == []
        assert [address for address in opened.requests if not address.startswith("data:")] == [page]
