"""A kill at every failpoint, at its first visits and at later ones, and what the run comes to.

The student is a hash chain over all that it learned: equal students mean that every use of a prompt
was learned from once, in the same order, drawn by the same weights.
"""

import random
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from configs.errors import DependencyError
from configs.faults import POINTS
from orchestration.claims import judge
from orchestration.evidence import Evidence
from orchestration.gathering import gather
from orchestration.roles import RoleDied, RoleError
from tests.orchestration import small_run
from tests.orchestration.chain_parts import ChainTeacher
from tests.orchestration.small_run import SmallRun

VISITS = (1, 2, 5)
"""Before the first checkpoint, at it, and between later ones."""
OVERLAPPED = {"replay": {"max_policy_lag": 2}}
PARTS = [point for point in POINTS if not point.startswith("driver.")]
TOO_SOON = ("learner.publish", 1)
"""Before the loops turn there is nothing to bring a learner back to."""


@cache
def undisturbed() -> tuple[str, list[str]]:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        run = SmallRun(Path(folder) / "runs", patch)
        assert run.live()
        return run.student()


def armed(point: str, visit: int) -> str:
    role, place = point.split(".")
    return f"{role}:{place}:{visit}:kill"


def is_honest(run: SmallRun) -> Evidence:
    """Check what a user can check of a run, whatever its state."""
    evidence = gather(run.folder)
    broken = [judgement for judgement in judge(evidence) if judgement.verdict == "broken"]
    assert not broken, broken
    evidence.account.balance().check()
    return evidence


def is_whole(run: SmallRun) -> None:
    """Check that a run has come to its end, and that its student is what the ledger says."""
    evidence = is_honest(run)
    assert evidence.succeeded
    learned = run.student()[1]
    assert sorted(learned) == sorted(str(uid) for uid in evidence.account.issued)
    assert len(set(learned)) == len(learned) == 24


@pytest.mark.parametrize(("point", "visit"), list(product(POINTS, VISITS)))
def test_a_killed_process_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch, point, visit):
    run = SmallRun(tmp_path / "runs", monkeypatch)
    assert not run.live(armed(point, visit)), "the fault did not strike"
    is_honest(run)
    assert run.live()
    is_whole(run)
    assert run.student() == undisturbed()


@pytest.mark.parametrize(
    ("point", "visit"), [at for at in product(PARTS, VISITS) if at != TOO_SOON]
)
def test_a_part_that_dies_alone_is_mended_as_if_nothing_had_been(
    tmp_path, monkeypatch, point, visit
):
    run = SmallRun(tmp_path / "runs", monkeypatch, roles_die_alone=True)
    assert run.live(armed(point, visit))
    assert run.deaths == 1, "the fault did not strike"
    is_whole(run)
    assert run.student() == undisturbed()


def test_a_learner_that_dies_before_the_first_step_ends_the_run_and_the_next_begins(
    tmp_path, monkeypatch
):
    run = SmallRun(tmp_path / "runs", monkeypatch, roles_die_alone=True)
    with pytest.raises(RoleDied, match="learner-0 died"):
        run.live(armed(*TOO_SOON))
    assert run.live()
    is_whole(run)
    assert run.student() == undisturbed()


def test_a_teacher_that_stays_away_ends_the_run_with_a_checkpoint_of_its_last_step(
    tmp_path, monkeypatch
):
    stubborn = {"supervision": {"max_restarts": 0}, "checkpoint": {"every": 100}}
    run = SmallRun(tmp_path / "runs", monkeypatch, stubborn, roles_die_alone=True)
    with pytest.raises(RoleError, match=r"teacher-0 died.*supervision\.max_restarts"):
        run.live(armed("teacher.judge", 6))
    evidence = is_honest(run)
    assert [checkpoint.step for checkpoint in evidence.checkpoints] == [5]
    assert run.live()
    is_whole(run)
    assert run.student() == undisturbed()


def test_a_served_teacher_that_fails_for_good_ends_the_run_the_same_way(tmp_path, monkeypatch):
    class Lost(ChainTeacher):
        judged = 0

        def judge(self, *given: Any) -> Any:
            self.judged += 1
            if self.judged == 6:
                raise DependencyError("the server could not be reached")
            return super().judge(*given)

    run = SmallRun(tmp_path / "runs", monkeypatch, {"checkpoint": {"every": 100}})
    with monkeypatch.context() as patch, pytest.raises(DependencyError, match="not be reached"):
        patch.setattr(small_run, "ChainTeacher", Lost)
        run.live()
    assert [checkpoint.step for checkpoint in is_honest(run).checkpoints] == [5]
    assert run.live()
    is_whole(run)
    assert run.student() == undisturbed()


@pytest.mark.parametrize("point", POINTS)
def test_with_overlap_every_use_is_learned_from_once_all_the_same(tmp_path, monkeypatch, point):
    run = SmallRun(tmp_path / "runs", monkeypatch, OVERLAPPED)
    assert not run.live(armed(point, 3)), "the fault did not strike"
    is_honest(run)
    assert run.live()
    is_whole(run)


@pytest.mark.parametrize("point", PARTS)
def test_a_part_that_dies_while_a_step_is_under_way_costs_nothing(tmp_path, monkeypatch, point):
    run = SmallRun(
        tmp_path / "runs", monkeypatch, OVERLAPPED, roles_die_alone=True, learner_seconds=0.005
    )
    assert run.live(armed(point, 4))
    assert run.deaths == 1, "the fault did not strike"
    is_whole(run)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("settings", [{}, OVERLAPPED], ids=["lockstep", "overlapped"])
def test_nor_does_one_crash_after_the_other_lose_anything(
    tmp_path, monkeypatch, seed, settings: dict[str, Any]
):
    chance = random.Random(seed)
    run = SmallRun(tmp_path / "runs", monkeypatch, settings)
    for _ in range(6):
        if run.live(armed(chance.choice(list(POINTS)), chance.randint(1, 6))):
            break
    assert run.deaths, "no fault struck"
    run.live()
    is_whole(run)
    if not settings:
        assert run.student() == undisturbed()


@pytest.mark.parametrize("seed", range(8))
def test_nor_do_several_deaths_in_one_life(tmp_path, monkeypatch, seed):
    chance = random.Random(seed)
    run = SmallRun(tmp_path / "runs", monkeypatch, roles_die_alone=True)
    strikes = [armed(chance.choice(PARTS), chance.randint(2, 12)) for _ in range(4)]
    assert run.live(",".join(strikes))
    assert run.deaths >= 2, "the faults did not strike"
    is_whole(run)
    assert run.student() == undisturbed()
