"""Which sequences of a tuple the learner scores, and what must be known of them.

Shape suffixes: see ``learner/batch.py``.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import numpy as np

from configs.errors import DataError
from configs.objective import DpkdConfig, Need, ObjectiveConfig
from configs.objectives.base import Sequences
from configs.wire import PreferenceTuple, Response, Uid

Role = Literal["teacher", "student", "rollout", "gold", "document"]
"""What a sequence is to its tuple: y_t, y_s, the one of the two that the tuple holds, the data's
own response, the text of the language-model loss."""

Actions = Literal["argmax", "sampled"]
"""How a model's action at a state is chosen from its distribution."""

_ROLES: Mapping[Sequences, tuple[Role, ...]] = {
    "gold": ("gold",),
    "teacher": ("teacher",),
    "pair": ("teacher", "student"),
    "rollout": ("rollout",),
}

_FIELDS: Mapping[Need, str] = {
    "teacher_logprobs": "teacher_logprobs_T",
    "teacher_distribution": "teacher_top_logprobs_TK",
    "reference_logprobs": "reference_logprobs_T",
    "response_score": "score",
}
"""Where a ``Response`` holds what an objective needs of it."""


class Asked(NamedTuple):
    """What an objective asks of a batch."""

    roles: tuple[Role, ...]
    """The sequences to score, the one that the objective visits first."""
    needs: frozenset[Need] = frozenset()
    """What must be known of them."""
    actions: Actions | None = None
    """How both models' actions are chosen at every state of the first role; None: they are not."""

    @classmethod
    def of(cls, objective: ObjectiveConfig) -> Self:
        """Read it off the objective."""
        roles = _ROLES[objective.sequences]
        if objective.lm_weight > 0:
            roles = (*roles, "document")
        actions = None
        if isinstance(objective, DpkdConfig) and objective.level == "token":
            actions = objective.actions
        return cls(roles, objective.needs, actions)


class Segment(NamedTuple):
    """One sequence to score: log-probabilities are wanted of ``target_ids_T`` only."""

    context_ids: np.ndarray
    target_ids_T: np.ndarray
    known: Response | None = None
    """The response that the target is, with what others say of it; None: nothing is known."""
    student_drawn: bool = False
    """Whether the student drew it."""
    uid: Uid | None = None
    """Names the use of the prompt: seeds the sampled actions."""


def segment(item: PreferenceTuple, role: Role, needs: frozenset[Need] = frozenset()) -> Segment:
    """Return the sequence that plays ``role`` in a tuple.

    The document of a tuple is its corpus document, whose first token is only context, or the
    gold response given its prompt where there is no corpus. Raises DataError, which names the
    row or the uid, when the sequence is missing, or something in ``needs`` of a response is.
    """
    prompt = item.prompt
    if role == "document" and prompt.corpus_ids_C is not None:
        return Segment(prompt.corpus_ids_C[:1], prompt.corpus_ids_C[1:])
    if role in ("gold", "document"):
        if prompt.gold_ids_T is None:
            raise DataError(
                f"row {prompt.row} has no gold response, which the objective learns from; "
                "map data.columns.response to a column that every row has, or set data.corpus "
                "for the language-model loss"
            )
        return Segment(prompt.prompt_ids_P, prompt.gold_ids_T)
    response, student_drawn = _response(item, role)
    _check_known(response, item.uid, student_drawn, needs)
    return Segment(prompt.prompt_ids_P, response.ids_T, response, student_drawn, item.uid)


def _response(item: PreferenceTuple, role: Role) -> tuple[Response, bool]:
    """Return the response that plays ``role``, and whether the student drew it."""
    y_t, y_s = item.teacher_response, item.student_response
    if role == "rollout" and y_t is not None and y_s is not None:
        raise DataError(
            f"tuple {item.uid} has a teacher and a student response, and the objective visits one "
            "sequence a tuple; drop the one that objective.student_share did not choose"
        )
    student_drawn = role == "student" or (role == "rollout" and y_t is None)
    response = y_s if student_drawn else y_t
    if response is None:
        wanted = "response" if role == "rollout" else f"{role}_response"
        raise DataError(
            f"tuple {item.uid} has no {wanted}, which the objective learns from; "
            "see that the role that draws it runs, or choose an objective that asks for none"
        )
    return response, student_drawn


def _check_known(response: Response, uid: Uid, student_drawn: bool, needs: frozenset[Need]) -> None:
    """Raise DataError where something that the objective needs of a response is not set."""
    fields = [field for need, field in _FIELDS.items() if need in needs]
    if student_drawn:
        fields.append("behaviour_logprobs_T")
    missing = [field for field in fields if getattr(response, field) is None]
    if missing:
        whose = "student" if student_drawn else "teacher"
        raise DataError(
            f"the {whose}_response of tuple {uid} has no {' and no '.join(missing)}, which the "
            "objective needs; set it where the tuple is made, or choose an objective that does "
            "not ask for it"
        )
