"""A run that is killed again and again gives what an undisturbed one does, bit for bit."""

import random
import shutil

import pytest

from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

SETTINGS = ("cluster.local=true", "deterministic=true", "learner.steps=16")
MOMENTS = 6
POINTS = (
    *("driver:issued", "driver:leased", "driver:learned", "driver:acked", "driver:consumed"),
    *("driver:pushed", "sampler:generated", "sampler:loaded", "teacher:judged"),
    *("learner:gradient", "learner:stepped", "queue:put", "queue:ack"),
    *("driver:checkpoint_filled", "driver:checkpoint_sealed", "driver:checkpoint_renamed"),
)
SEED = 20261122


def moments(seed: int) -> list[str]:
    """Return where each life is killed: a failpoint, and at which visit of that life."""
    draw = random.Random(seed)
    chosen = draw.sample(POINTS, MOMENTS)
    return [f"{p}:{1 if 'checkpoint' in p else draw.randint(1, 5)}:kill" for p in chosen]


def test_kills_at_seeded_moments_change_no_bit(tmp_path, report):
    calm = FaultyRun(tmp_path, *SETTINGS, name="calm")
    assert calm.wait() == 0, calm.tail()
    # The killed run is to have its answers from the teacher, not from the calm one's cache.
    shutil.rmtree(tmp_path / "cache" / "teacher")
    for fault in moments(SEED):
        run = FaultyRun(tmp_path, *SETTINGS, "resume=auto", faults=fault, name="killed")
        assert run.wait() == -9, f"{fault} did not kill: {run.tail()}"
        assert run.survivors() == []
    run = FaultyRun(tmp_path, *SETTINGS, "resume=auto", name="killed")
    assert run.wait() == 0, run.tail()
    assert run.losses() == calm.losses()
    assert run.student() == calm.student()
    run.verify()
    injected = f"seed {SEED}: {moments(SEED)[0]} ..."
    report(run.outcome(f"6, 7 killed at {MOMENTS} moments, bit for bit", injected))


def test_the_same_command_once_more_says_that_all_is_done_and_what_may_not_change(tmp_path):
    short = ("cluster.local=true", "learner.steps=4")
    run = FaultyRun(tmp_path, *short, "resume=auto")
    assert run.wait() == 0, run.tail()
    weights = run.student()
    again = FaultyRun(tmp_path, *short, "resume=auto")
    assert again.wait() == 0, again.tail()
    assert "is finished; raise learner.steps to go on" in again.log.read_text()
    other = FaultyRun(tmp_path, *short, "resume=auto", "learner.steps=6", "objective.beta=3")
    assert other.wait() == 2
    assert "objective.beta is 3.0 and was 1.0" in other.log.read_text()
    assert run.student() == weights
    longer = FaultyRun(tmp_path, *short, "resume=auto", "learner.steps=6")
    assert longer.wait() == 0, longer.tail()
    assert [step for step, _ in longer.losses()] == [1, 2, 3, 4, 5, 6]
    longer.verify()
    branch = FaultyRun(tmp_path, *short, f"resume={run.folder}", "learner.steps=8", name="branch")
    assert branch.wait() == 0, branch.tail()
    assert [step for step, _ in branch.losses()] == [7, 8]
    assert branch.json("summary.json")["ledger"]["consumed"] == 64
    branch.verify()
