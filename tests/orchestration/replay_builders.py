"""Tuples of known size, and a clock that stands still."""

import numpy as np

from configs.wire import PreferenceTuple, Prompt, Response, Uid

BYTES = 4 * (2 + 3 + 3)  # of one pair(): two prompt ids, three response ids and log-probabilities


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def uid(ordinal: int) -> Uid:
    return Uid(0, ordinal, 0)


def pair(ordinal: int, version: int = 0, tokens: int = 3) -> PreferenceTuple:
    return PreferenceTuple(
        prompt=Prompt(uid=uid(ordinal), row=ordinal, prompt_ids_P=np.array([1, 2], np.int32)),
        student_response=Response(
            ids_T=np.arange(tokens, dtype=np.int32),
            finish_reason="stop",
            behaviour_logprobs_T=np.zeros(tokens, np.float32),
        ),
        weight_version=version,
    )


def pairs(*ordinals: int, version: int = 0) -> list[PreferenceTuple]:
    return [pair(ordinal, version) for ordinal in ordinals]


def gold(ordinal: int) -> PreferenceTuple:
    return PreferenceTuple(prompt=pair(ordinal).prompt)


def ordinals(tuples: list[PreferenceTuple]) -> list[int]:
    return [one.uid.ordinal for one in tuples]
