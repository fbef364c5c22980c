"""Who draws y_s is decided by the uid: the right share, and the same every time."""

from typing import Any

from configs.run import RunConfig
from configs.wire import Uid
from orchestration.origins import origin_of


def config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"student": {"model": "s"}, "teacher": {"model": "t"}, **sections}
    )


def counts(made: RunConfig) -> dict[str, int]:
    drawn = [origin_of(Uid(0, ordinal, 0), made) for ordinal in range(4000)]
    return {origin: drawn.count(origin) for origin in ("student", "offline", "teacher")}


def test_pairs_are_all_the_students_own_unless_a_share_is_offline():
    assert counts(config()) == {"student": 4000, "offline": 0, "teacher": 0}
    shared = counts(config(negatives={"offline_share": 0.25}))
    assert abs(shared["offline"] - 1000) < 120 and shared["teacher"] == 0


def test_a_rollout_objective_gets_its_share_of_student_responses():
    mixed = counts(config(objective={"type": "gkd", "on_policy_share": 0.8}))
    assert abs(mixed["student"] - 3200) < 120
    assert mixed["offline"] == 0
    assert counts(config(objective={"type": "seqkd"}))["teacher"] == 4000


def test_the_decision_depends_on_seed_and_uid_alone():
    made = config(objective={"type": "gkd", "on_policy_share": 0.5})
    other = made.model_copy(update={"seed": 1})
    uids = [Uid(0, ordinal, sample) for ordinal in range(100) for sample in range(2)]
    first = [origin_of(uid, made) for uid in uids]
    assert first == [origin_of(uid, made) for uid in reversed(uids)][::-1]
    assert first != [origin_of(uid, other) for uid in uids]
    assert first[::2] != first[1::2]
