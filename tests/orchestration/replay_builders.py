"""Tuples of known size, and a clock that stands still."""

from collections.abc import Sequence

import numpy as np

from configs.packing import pack
from configs.wire import PreferenceTuple, Prompt, Response, TupleHead, Uid

BYTES = 240 + 8 + 2 * 16
"""Of one pair(): a header; two prompt ids; three response ids and log-probabilities, each with what
fills them up to a multiple of 8 bytes."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def uid(ordinal: int) -> Uid:
    return Uid(0, ordinal, 0)


def whole_pair(ordinal: int, version: int = 0, tokens: int = 3) -> PreferenceTuple:
    return PreferenceTuple(
        prompt=Prompt(uid=uid(ordinal), row=ordinal, prompt_ids_P=np.array([1, 2], np.int32)),
        student_response=Response(
            ids_T=np.arange(tokens, dtype=np.int32),
            finish_reason="stop",
            behaviour_logprobs_T=np.zeros(tokens, np.float32),
        ),
        weight_version=version,
    )


def pair(ordinal: int, version: int = 0, tokens: int = 3) -> TupleHead:
    return pack([whole_pair(ordinal, version, tokens)])[0].head


def pairs(*ordinals: int, version: int = 0) -> list[TupleHead]:
    return [pair(ordinal, version) for ordinal in ordinals]


def gold(ordinal: int) -> TupleHead:
    return pack([PreferenceTuple(prompt=whole_pair(ordinal).prompt)])[0].head


def ordinals(uids: Sequence[Uid]) -> list[int]:
    return [one.ordinal for one in uids]
