"""From prompts, answers and trajectories to tuples, and to what of them is to be scored."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from actors.likeness import likeness
from configs.wire import PreferenceTuple, Prompt, Response, Trajectory

Side = Literal["teacher_response", "student_response"]
SIDES: tuple[Side, Side] = ("teacher_response", "student_response")
"""The fields of a tuple that hold a response."""


class Place(NamedTuple):
    """One response of a batch of tuples."""

    index: int
    """Of the tuple in the batch."""
    side: Side
    prompt: Prompt
    response: Response


def join(
    prompts: Sequence[Prompt], answers: Sequence[Response], drawn: Iterable[Trajectory]
) -> list[PreferenceTuple]:
    """Return one tuple a prompt, in their order, of its y_t and its y_s where it has them.

    ``answers`` holds a y_t for every prompt, or else one for every prompt without a trajectory;
    trajectories are found by uid.
    """
    by_uid = {trajectory.prompt.uid: trajectory for trajectory in drawn}
    everyone = len(answers) == len(prompts)
    answered = [prompt for prompt in prompts if everyone or prompt.uid not in by_uid]
    answer_of = {p.uid: answer for p, answer in zip(answered, answers, strict=True)}
    return [_tuple(p, answer_of.get(p.uid), by_uid.get(p.uid)) for p in prompts]


def _tuple(
    prompt: Prompt, answer: Response | None, trajectory: Trajectory | None
) -> PreferenceTuple:
    return PreferenceTuple(
        prompt=prompt,
        teacher_response=answer,
        student_response=None if trajectory is None else trajectory.response,
        weight_version=None if trajectory is None else trajectory.weight_version,
    )


def places(tuples: Sequence[PreferenceTuple]) -> Iterator[Place]:
    """Yield every response that the tuples hold."""
    for index, item in enumerate(tuples):
        for side in SIDES:
            response: Response | None = getattr(item, side)
            if response is not None:
                yield Place(index, side, item.prompt, response)


def put_back(
    tuples: Sequence[PreferenceTuple], changed: Iterable[tuple[Place, Response]]
) -> list[PreferenceTuple]:
    """Return the tuples with each of the places holding its new response."""
    changes: list[dict[Side, Response]] = [{} for _ in tuples]
    for place, response in changed:
        changes[place.index][place.side] = response
    return [replace(item, **change) for item, change in zip(tuples, changes, strict=True)]


def with_likeness(item: PreferenceTuple) -> PreferenceTuple:
    """Return a pair with ``score`` set: the likeness of y_s to y_t, and 1 for y_t itself."""
    teacher, student = item.teacher_response, item.student_response
    assert teacher is not None and student is not None, "objectives on pairs ask for this score"
    return replace(
        item,
        teacher_response=replace(teacher, score=1.0),
        student_response=replace(student, score=likeness(student, teacher)),
    )
