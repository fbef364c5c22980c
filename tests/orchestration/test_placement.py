"""What Ray reports, as one sentence of a known kind."""

from ray.exceptions import GetTimeoutError, ObjectLostError, OwnerDiedError

from orchestration.placement import _for_the_user
from orchestration.roles import AnswerLost, RoleDied, RoleError


def test_an_answer_on_a_lost_machine_is_to_be_asked_for_again():
    for kind in (ObjectLostError, OwnerDiedError):
        error = _for_the_user(kind("ab" * 28, b"", ""), "teacher-0")
        assert isinstance(error, AnswerLost)
        assert str(error).startswith("an answer that teacher-0 was to have is lost (")


def test_whatever_else_ray_says_ends_the_run():
    error = _for_the_user(GetTimeoutError("too slow"), "teacher-0")
    assert isinstance(error, RoleError) and not isinstance(error, RoleDied)
    assert str(error) == "teacher-0 could not answer: too slow"
