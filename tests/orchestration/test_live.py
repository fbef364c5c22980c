"""The live page: what it is told, and who is told it."""

import json
import math
import urllib.error
import urllib.request
from itertools import pairwise

import pytest

from configs.monitoring import MonitoringConfig
from orchestration import live
from orchestration.exporter import MetricsHub
from orchestration.live import LiveFeed


def filled(steps: int) -> LiveFeed:
    feed = LiveFeed()
    feed.stage("run")
    for step in range(1, steps + 1):
        feed.step({"step": step, "time": 100.0 + step, "loss": 0.5, "grad_norm": 2.0})
    return feed


def test_a_newcomer_gets_everything_and_then_only_what_is_new():
    feed = filled(3)
    news = feed.since(-1, 0)
    assert (news["stage"], news["first"]) == ("run", 0)
    assert news["points"][0] == {"step": 1, "time": 101.0, "loss": 0.5}
    feed.step({"step": 4, "time": 104.0, "loss": 0.25})
    later = feed.since(news["edition"], 3)
    assert [point["step"] for point in later["points"]] == [4]
    assert later["first"] == 3
    assert feed.since(news["edition"], 4)["points"] == []


def test_another_stage_makes_what_a_reader_holds_void():
    feed = filled(3)
    seen = feed.since(-1, 0)["edition"]
    feed.stage("next")
    feed.step({"step": 1, "time": 1.0})
    news = feed.since(seen, 3)
    assert (news["stage"], news["first"], len(news["points"])) == ("next", 0, 1)
    assert news["edition"] != seen


def test_a_long_run_is_thinned_and_keeps_its_whole_course(monkeypatch):
    monkeypatch.setattr(live, "POINTS", 10)
    steps = [point["step"] for point in filled(100).since(-1, 0)["points"]]
    assert len(steps) <= 10
    assert steps[0] == 1 and steps[-1] > 90
    gaps = {after - before for before, after in pairwise(steps)}
    assert len(gaps) <= 2, "the course is not thinned evenly"


def test_a_number_that_is_none_is_a_hole():
    feed = filled(0)
    feed.step({"step": 1, "time": 1.0, "loss": math.nan})
    feed.evaluated("before", 0, {"rouge_l": math.inf})
    news = feed.since(-1, 0)
    assert news["points"][0]["loss"] is None
    assert news["scores"] == [{"when": "before", "step": 0, "rouge_l": None}]


def test_busy_shares_are_of_the_time_since_the_last_look_and_survive_a_clock_set_to_zero():
    feed = filled(0)
    shares = []
    for busy, idle in ((1.0, 3.0), (3.0, 3.0), (1.0, 1.0)):
        feed.clocks({"sampler": {"busy_seconds": busy, "idle_seconds": idle}})
        feed.step({"step": 1, "time": 1.0})
        shares.append(feed.since(-1, 0)["points"][-1]["busy_sampler"])
    assert shares == [0.25, 1.0, 0.5]


@pytest.fixture
def hub():
    hub = MetricsHub(MonitoringConfig.model_validate({"port": 0}))
    yield hub
    hub.close()


def answer(hub: MetricsHub, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{hub.page_url}{path}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_needs_nobody_but_its_own_server(hub):
    status, page = answer(hub, "")
    assert status == 200 and "<script>" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_a_step_that_is_recorded_is_news(hub, tmp_path):
    hub.log_to(tmp_path)
    hub.record_step(1, {"loss": 0.5, "reverse_kl_k1": math.nan}, queue={"depth": 7})
    status, text = answer(hub, "live.json?edition=-1&held=0")
    (point,) = json.loads(text)["points"]
    assert status == 200
    assert (point["loss"], point["reverse_kl_k1"], point["queue_depth"]) == (0.5, None, 7)


@pytest.mark.parametrize("query", ["", "?edition=x&held=-3", "?held=99999999999", "?edition="])
def test_a_question_that_makes_no_sense_is_a_newcomer_s(hub, query):
    status, text = answer(hub, f"live.json{query}")
    assert status == 200 and json.loads(text)["points"] == []


@pytest.mark.parametrize("path", ["", "live.json"])
def test_a_foreign_name_that_points_here_is_told_nothing(hub, path):
    assert answer(hub, path, Host="evil.example:9108")[0] == 403
    assert answer(hub, path, Host="localhost:9108")[0] == 200
    assert answer(hub, path, Host="[::1]:9108")[0] == 200
    assert answer(hub, "metrics", Host="evil.example:9108")[0] == 200


def test_an_unknown_path_is_told_which_there_are(hub):
    assert answer(hub, "grafana") == (404, "try /, /metrics or /healthz\n")
