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
    for role, fault in zip(
        ("sampler-0", "teacher-0", "learner", "queue"), faults.split(","), strict=True
    ):
        report(run.outcome(f"{role} killed", fault, restarted=role))
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
    report(run.outcome("sampler hung", "sampler:generate:2:stop", restarted="sampler-0"))
    report(run.outcome("loss not finite", "learner:forward:3:nan"))
    report(run.outcome("prompt that kills samplers", "sampler:generate.0/45/0:*:kill"))
    assert run.survivors() == []


def test_what_arrives_late_twice_or_half_changes_nothing(tmp_path, report):
    """A dead engine in a living actor, pushes cut short, a small queue, leases that expire."""
    faults = "sampler:engine:9:raise,learner:publish:6:kill,sampler:load:14:kill"
    settings = ("replay.max_policy_lag=2", "replay.max_tuples=16", "replay.lease_seconds=0.01")
    run = FaultyRun(tmp_path, "learner.steps=16", *settings, faults=faults, name="late")
    assert run.wait() == 0, run.tail()
    summary = run.json("summary.json")
    assert summary["ledger"] == {"issued": 128, "consumed": 128, "in_flight": 0, "dropped": {}}
    assert summary["restarts"]["sampler"] >= 1 and summary["restarts"]["learner"] == 1
    assert summary["weight_sync"]["verified"] is True
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert max(line["lag"] for line in lines) <= 2
    assert max(line["queue_held"] for line in lines) <= 16
    assert lines[-1]["queue_expired"] >= 8, "no lease expired"
    run.verify()
    engine, publish, load = faults.split(",")
    report(run.outcome("3 engine dead in a living actor", engine, restarted="sampler-0"))
    report(run.outcome("10 queue full", "replay.max_tuples=16"))
    report(run.outcome("16 push cut short by the learner", publish, restarted="learner"))
    report(run.outcome("16 push cut short by the sampler", load))
    report(run.outcome("18 late acks, tuples delivered twice", "replay.lease_seconds=0.01"))
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
    on = FaultyRun(tmp_path, *short, "resume=auto", name="bereft")
    assert on.wait() == 0, on.tail()
    assert on.json("summary.json")["ledger"]["consumed"] == 96
    on.verify()
    report(on.outcome("teacher lost for good, run resumed", faults))
