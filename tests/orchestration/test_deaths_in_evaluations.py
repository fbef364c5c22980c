"""Parts that die while an evaluation has lent the samplers other weights than they draw with."""

from typing import Any

import pytest

from orchestration.examiner import Examiner
from orchestration.roles import RoleDied
from tests.orchestration.small_run import SmallRun
from tests.orchestration.test_fault_enumeration import is_whole

NEGATIVES = ({"type": "initial"}, {"type": "snapshot", "every": 3}, {"type": "fresh"})


@pytest.mark.parametrize("who", ["learner-0", "queue", "sampler-0", "teacher-0"])
@pytest.mark.parametrize("negatives", NEGATIVES, ids=lambda each: each["type"])
def test_a_part_that_dies_in_an_evaluation_costs_nothing(
    tmp_path, monkeypatch, negatives: dict[str, Any], who: str
):
    settings = {
        "negatives": negatives,
        "evaluation": {"generate": False, "every": 4},
        "checkpoint": {"every": 3},
    }
    run = SmallRun(tmp_path / "runs", monkeypatch, settings, roles_die_alone=True)
    look, died = Examiner.look, []

    async def dies_once(examiner: Examiner, when: str, step: int, roles: Any) -> None:
        if step == 4 and not died:
            died.append(step)
            role = next(each for each in roles.all() if each.name == who)
            role.kill()
            raise RoleDied(f"{who} died", role=who, life=role.life)
        await look(examiner, when, step, roles)

    monkeypatch.setattr(Examiner, "look", dies_once)
    assert run.live()
    assert died
    is_whole(run)
