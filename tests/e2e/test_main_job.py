"""The main job on real parts: outputs, live metrics, determinism, signals, the finished student."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.e2e.tiny import ROOT, TinyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


class Scraper:
    """Scrapes a run's exporter while it goes on."""

    def __init__(self, run: TinyRun) -> None:
        self.run = run
        self.seen: list[dict[str, float]] = []

    def __call__(self) -> None:
        try:
            if not (url := self.run.json("status.json")["metrics_url"]):
                return
            with urllib.request.urlopen(url, timeout=2) as answer:
                text = answer.read().decode()
        except (OSError, KeyError, json.JSONDecodeError):
            return  # not up yet, or just gone
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        self.seen.append({sample.name: sample.value for sample in samples if not sample.labels})

    def values(self, name: str) -> set[float]:
        found = {scrape[name] for scrape in self.seen if name in scrape}
        return {value for value in found if np.isfinite(value)}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="module")
def first(home) -> tuple[TinyRun, Scraper]:
    shown = ("report=true", "timeline=true", "tracking.to=[tensorboard]")
    run = TinyRun(home, "learner.steps=40", *(f"monitoring.{each}" for each in shown))
    scraper = Scraper(run)
    assert run.wait(scraper) == 0, run.tail()
    return run, scraper


def test_the_run_leaves_the_promised_files_and_no_process(first):
    run, _ = first
    names = ("config.yaml", "status.json", "summary.json", "metrics.jsonl", "events.jsonl")
    for name in (*names, "samples.jsonl", "student/model.safetensors", "student/README.md"):
        assert (run.folder / name).stat().st_size > 0, name
    assert run.json("status.json")["state"] == "succeeded"
    assert run.survivors() == []


def test_its_report_shows_what_was_learned_and_single_tokens(first):
    html = (first[0].folder / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "What came out",
        "Does it learn?",
        "Reward against reverse KL",
        "What does it wait for?",
        "Where the time went",
        "What befell it",
        "What it writes",
        "Token by token",
        "What became of every prompt",
        "How it was made",
    ]
    assert html.count('alt="advantage of every token"') == 2
    assert "<td>student after</td>" in html and "No picture" not in html


def test_the_summary_balances_and_every_push_is_proved(first):
    summary = first[0].json("summary.json")
    ledger = summary["ledger"]
    assert (ledger["issued"], ledger["consumed"], ledger["in_flight"]) == (320, 320, 0)
    assert ledger["dropped"] == {}
    assert summary["weight_sync"]["verified"] is True
    assert summary["weight_sync"]["count"] == 41
    assert summary["logprob_drift"]["max"] < 1e-3
    for when in ("before", "after", "teacher"):
        assert {"rouge_l", "exact_match", "reverse_kl_nats"} <= set(summary["eval"][when])
    assert summary["throughput"]["pairs_per_second"] > 0


def test_every_second_of_every_role_is_accounted_for(first):
    summary = first[0].json("summary.json")
    loops = summary["ledger"]["consumed"] / summary["throughput"]["pairs_per_second"]
    worked = {"sampler": "generating", "teacher": "scoring", "learner": "learning"}
    assert set(summary["time"]) == set(worked)
    for role, activity in worked.items():
        account = summary["time"][role]
        wall = account["wall_seconds"]
        assert 0.95 * loops <= wall, "the account covers the loops"
        assert account["busy_seconds"] + account["idle_seconds"] == pytest.approx(wall, rel=0.05)
        assert account["busy"][activity] > 0 and account["idle"], role


def test_a_tracker_holds_the_losses_of_the_run_and_of_none_of_its_stages(first):
    run = first[0]
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    told = [event.value for event in events.Scalars("train/loss")]
    assert told == pytest.approx(run.json("summary.json")["losses"])
    assert len(events.Scalars("student/rouge_l")) == 2, "before and after"
    assert list(run.folder.rglob("*.tfevents*")) and not list(
        run.folder.glob("stages/**/tensorboard")
    )


def test_the_timeline_shows_who_did_what_without_gap_or_overlap(first):
    events = json.loads((first[0].folder / "timeline.json").read_text())
    rows = {event["args"]["name"]: event["pid"] for event in events if event["ph"] == "M"}
    assert set(rows) == {"driver", "sampler-0", "teacher-0", "learner-0"}
    assert {event["name"] for event in events if event["ph"] == "C"} >= {"loss", "queue_depth"}
    for name in ("sampler-0", "teacher-0", "learner-0"):
        spans = [event for event in events if event["ph"] == "X" and event["pid"] == rows[name]]
        ends = [span["ts"] + span["dur"] for span in spans]
        gaps = [after["ts"] - end for after, end in zip(spans[1:], ends, strict=False)]
        assert min(gaps) >= -2, "microseconds: two spans at once"
        assert sum(gap for gap in gaps if gap > 2) < 0.05 * (ends[-1] - spans[0]["ts"]), name


def test_rewards_and_reverse_kl_move_on_the_exporter_while_the_run_goes_on(first):
    _, scraper = first
    names = ("dpkd_reward_teacher", "dpkd_reward_student", "dpkd_reverse_kl_k1_nats", "dpkd_step")
    for name in names:
        assert len(scraper.values(name)) >= 2, (name, scraper.values(name))


def test_the_same_seed_gives_the_same_losses_and_weights_from_cached_models(first, home):
    again = TinyRun(home, "learner.steps=40", name="again")
    assert again.wait() == 0, again.tail()
    assert again.json("summary.json")["losses"] == first[0].json("summary.json")["losses"]
    weights = [run.folder / "student" / "model.safetensors" for run in (first[0], again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "made before" in again.log.read_text()
    # The teacher answered every prompt in the first run: the cache survives runs.
    assert again.json("summary.json")["teacher_cache"]["hit_rate"] == 1.0
    assert first[0].json("summary.json")["teacher_cache"]["misses"] > 0


def test_overlapped_runs_stay_within_the_lag_bound(first, home):
    run = TinyRun(home, "replay.max_policy_lag=2", "student.replicas=2", name="overlapped")
    assert run.wait() == 0, run.tail()
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    lags = [line["lag"] for line in lines]
    assert len(lags) == 6
    assert max(lags) in (1, 2)
    assert run.json("summary.json")["ledger"]["in_flight"] == 0


def test_two_learner_ranks_in_actors_of_their_own_learn_the_same(first, home):
    run = TinyRun(home, "learner.ranks=2", "learner.zero_stage=2", "learner.steps=3", name="ranks")
    assert run.wait() == 0, run.tail()
    # The learning rate is still warming up, so it is that of the longer run.
    losses = first[0].json("summary.json")["losses"][:3]
    assert run.json("summary.json")["losses"] == pytest.approx(losses, abs=1e-3)
    assert run.survivors() == []


def test_the_student_loads_with_transformers_and_with_vllm(first):
    from transformers import AutoModelForCausalLM

    run, _ = first
    student = run.folder / "student"
    AutoModelForCausalLM.from_pretrained(student)
    data = next((run.folder.parents[1] / "cache" / "data").glob("embedded-*")) / "valid.jsonl"
    teacher = next((run.folder.parents[1] / "cache" / "models").glob("teacher-*"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "orchestration.evaluate", student, data),
            *("--teacher", teacher, "--rows", "8", "student.sampling.max_new_tokens=16"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout)
    after = run.json("summary.json")["eval"]["after"]
    assert scores["rouge_l"] == pytest.approx(after["rouge_l"], abs=1e-3)
    assert scores["reverse_kl_nats"] == pytest.approx(after["reverse_kl_nats"], abs=1e-3)


def test_sigint_finishes_the_step_and_leaves_nothing_behind(first, home):
    run = TinyRun(home, "learner.steps=2000", name="interrupted")
    sent: list[bool] = []

    def interrupt() -> None:
        if run.step() >= 2 and not sent:
            os.kill(run.process.pid, signal.SIGINT)
            sent.append(True)

    assert run.wait(interrupt) == 130, run.tail()
    status = run.json("status.json")
    assert (status["state"], status["exit_code"]) == ("stopped", 130)
    assert 2 <= status["step"] < 2000
    assert (run.folder / "student" / "model.safetensors").exists()
    assert run.survivors() == []


def test_a_model_whose_training_was_cut_short_is_not_kept(first, home):
    run = TinyRun(home, "student.warm_start.steps=5000", name="cut")
    before = set((home / "cache" / "models").glob("student-*"))
    status = run.folder / "stages" / "student-sft" / "status.json"
    sent: list[bool] = []

    def interrupt() -> None:
        if not sent and status.exists() and json.loads(status.read_text())["step"] >= 2:
            os.kill(run.process.pid, signal.SIGTERM)
            sent.append(True)

    assert run.wait(interrupt) == 143, run.tail()
    assert run.json("status.json")["state"] == "stopped"
    assert set((home / "cache" / "models").glob("student-*")) == before
    assert run.survivors() == []


def test_an_actor_that_dies_ends_the_run_with_one_sentence(first, home):
    run = TinyRun(home, "learner.steps=2000", "supervision.max_restarts=0", name="bereaved")
    killed: list[int] = []

    def kill_a_vllm_actor() -> None:
        if run.step() >= 2 and not killed:
            actors = [p for p in run.family() if p.name().startswith("ray::_Host")]
            victim = max(actors, key=lambda process: process.memory_info().rss)
            victim.kill()
            killed.append(victim.pid)

    assert run.wait(kill_a_vllm_actor) == 3, run.tail()
    assert run.json("status.json")["state"] == "failed"
    assert " died (" in run.json("status.json")["reason"]
    assert run.log.read_text().strip().splitlines()[-1].startswith("error: ")
    assert run.survivors() == []


def test_the_local_runner_runs_the_same_pipeline_in_one_process(first, home):
    run = TinyRun(home, "cluster.local=true", "learner.steps=4", name="local")
    assert run.wait() == 0, run.tail()
    assert run.json("summary.json")["ledger"]["consumed"] == 32
    assert run.survivors() == []
