"""Builders that several tests share: small wire values, made from what a test cares about."""

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt, Response, Trajectory, Uid


def run_config(**sections: Any) -> RunConfig:
    models = {"student": {"model": "s"}, "teacher": {"model": "t"}}
    return RunConfig.model_validate(models | sections)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def prompt(ordinal: int = 0, *, epoch: int = 0, sample: int = 0) -> Prompt:
    return Prompt(
        uid=Uid(epoch, ordinal, sample),
        row=ordinal,
        prompt_ids_P=ids(5, 6, 7),
        gold_ids_T=ids(8, 2),
        references=("gold",),
    )


def response(
    *tokens: int, behaviour: float | None = None, teacher: float | None = None
) -> Response:
    tokens = tokens or (8, 9, 2)
    return Response(
        ids_T=ids(*tokens),
        finish_reason="stop",
        behaviour_logprobs_T=_constant(behaviour, len(tokens)),
        teacher_logprobs_T=_constant(teacher, len(tokens)),
    )


def trajectory(of: Prompt, version: int = 0) -> Trajectory:
    return Trajectory(prompt=of, response=response(behaviour=-1.0), weight_version=version)


def pair(of: Prompt, version: int = 0) -> PreferenceTuple:
    return PreferenceTuple(
        prompt=of,
        teacher_response=response(4, 3, 2, teacher=-0.5),
        student_response=response(behaviour=-1.0, teacher=-2.0),
        weight_version=version,
    )


def assert_same(left: Any, right: Any) -> None:
    """Check that two values that travel are equal to the last bit, arrays' types included."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()
    elif is_dataclass(left):
        for field in fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name))
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def _constant(value: float | None, length: int) -> np.ndarray | None:
    return None if value is None else np.full(length, value, np.float32)
