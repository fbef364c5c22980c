"""Parts in real Ray actors that die, hang or lie under a run, which goes on by itself."""

import json

import pytest

from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def test_every_kind_of_part_may_die_in_one_run(tmp_path, report):
    faults = (
        "sampler:generated:4:kill,teacher:judge:8:kill,learner:stepped:12:kill,queue:ack:7:kill"
    )
    run = FaultyRun(
        tmp_path, "learner.steps=24", "replay.max_policy_lag=2", faults=faults, name="deaths"
    )
    assert run.wait() == 0, run.tail()
    summary = run.json("summary.json")
    assert summary["restarts"] == {"sampler": 1, "teacher": 1, "learner": 1, "queue": 1}
    assert summary["ledger"] == {"issued": 192, "consumed": 192, "in_flight": 0, "dropped": {}}
    assert [step for step, _ in run.losses()] == list(range(1, 25))
    run.verify()
    rows = {"1": "sampler-0", "4": "teacher-0", "6": "learner", "11": "queue"}
    for (row, role), fault in zip(rows.items(), faults.split(","), strict=True):
        report(run.outcome(f"{row} {role} killed", fault, restarted=role))
    assert run.survivors() == []


def test_a_hung_sampler_a_poisonous_prompt_and_a_loss_that_is_none(tmp_path, report):
    """The prompt kills whatever sampler draws for it, restarted ones too."""
    faults = "sampler:generate:2:stop,learner:forward:3:nan,sampler:generate.0/45/0:*:kill"
    run = FaultyRun(tmp_path, "learner.steps=10", faults=faults, name="ills")
    assert run.wait() == 0, run.tail()
    summary = run.json("summary.json")
    assert summary["ledger"]["dropped"] == {"nonfinite": 8, "poison": 1}
    assert summary["ledger"]["consumed"] == 80
    assert summary["restarts"]["sampler"] == 4
    assert (run.folder / "nonfinite-after-step-2.json").exists()
    run.verify()
    report(run.outcome("2 sampler hung", "sampler:generate:2:stop", restarted="sampler-0"))
    report(run.outcome("12 loss not finite", "learner:forward:3:nan"))
    report(run.outcome("19 prompt that kills samplers", "sampler:generate.0/45/0:*:kill"))
    assert run.survivors() == []


def test_dead_engines_pushes_cut_short_and_a_full_queue_change_nothing(tmp_path, report):
    """The pause comes before the first checkpoint, the learner's death behind it."""
    faults = (
        "learner:forward:2:pause,learner:publish:9:kill,"
        "sampler-0:engine:9:raise,sampler-1:load:5:kill"
    )
    settings = ("replay.max_policy_lag=2", "replay.max_tuples=8", "student.replicas=2")
    run = FaultyRun(tmp_path, "learner.steps=16", *settings, faults=faults, name="half")
    assert run.wait() == 0, run.tail()
    summary = run.json("summary.json")
    assert summary["ledger"] == {"issued": 128, "consumed": 128, "in_flight": 0, "dropped": {}}
    assert summary["restarts"] == {"sampler": 2, "teacher": 0, "learner": 1, "queue": 0}
    assert summary["weight_sync"]["verified"] is True
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert max(line["lag"] for line in lines) <= 2
    assert max(line["queue_waited"] for line in lines) > 0, "the queue was never full"
    run.verify()
    pause, publish, engine, load = faults.split(",")
    report(run.outcome("3 engine dead in a living actor", engine, restarted="sampler-0"))
    report(run.outcome("10 queue full", f"replay.max_tuples=8, {pause}"))
    report(run.outcome("16 push cut short by the learner", publish, restarted="learner"))
    report(run.outcome("16 push cut short by the sampler", load, restarted="sampler-1"))
    assert run.survivors() == []


def test_a_teacher_that_does_not_come_back_stops_the_run_with_a_checkpoint(tmp_path, report):
    faults = "teacher:judge:6:kill,teacher:judge:*:kill"
    short = ("learner.steps=12", "supervision.max_restarts=1", "checkpoint.every=100")
    run = FaultyRun(tmp_path, *short, faults=faults, name="bereft")
    assert run.wait() == 3, run.tail()
    reason = run.json("status.json")["reason"]
    assert "teacher-0 died" in reason and "supervision.max_restarts" in reason
    assert run.survivors() == []
    run.verify()
    step = run.json("status.json")["step"]
    assert run.newest_checkpoint().name == f"step-{step:08d}"
    on = FaultyRun(tmp_path, *short, "resume=auto", name="bereft")
    assert on.wait() == 0, on.tail()
    assert f"step-{step:08d}, step {step}" in on.log.read_text()
    assert on.json("summary.json")["ledger"]["consumed"] == 96
    on.verify()
    report(on.outcome("4 teacher lost for good, run resumed", faults))
