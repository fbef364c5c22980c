"""Tuples as a run makes them, numbered on: what the benchmarks of queue and memory pass along."""

import numpy as np

from configs.packing import pack
from configs.wire import PackedBatch, PreferenceTuple, Prompt, Response, Uid

BATCH = 64
"""Tuples of a call."""
PROMPT = RESPONSE = 64
"""Tokens."""
VOCAB = 32_000


def batch_of(number: int) -> PackedBatch:
    """Return the ``number``-th batch: tuples of one content, each with a uid of its own."""
    uids = uids_of(number)
    return PackedBatch(item._replace(uid=uid) for uid, item in zip(uids, _CONTENT, strict=True))


def uids_of(number: int) -> list[Uid]:
    """Return the uids of the ``number``-th batch."""
    return [Uid(0, ordinal, 0) for ordinal in range(number * BATCH, (number + 1) * BATCH)]


def _tuple(rng: np.random.Generator, row: int) -> PreferenceTuple:
    def ids(tokens: int) -> np.ndarray:
        return rng.integers(VOCAB, size=tokens, dtype=np.int32)

    def logprobs() -> np.ndarray:
        return -rng.exponential(size=RESPONSE).astype(np.float32)

    return PreferenceTuple(
        prompt=Prompt(uid=Uid(0, row, 0), row=row, prompt_ids_P=ids(PROMPT)),
        teacher_response=Response(
            ids_T=ids(RESPONSE), finish_reason="stop", teacher_logprobs_T=logprobs()
        ),
        student_response=Response(
            ids_T=ids(RESPONSE),
            finish_reason="stop",
            behaviour_logprobs_T=logprobs(),
            teacher_logprobs_T=logprobs(),
        ),
        weight_version=0,
    )


_RNG = np.random.default_rng(0)
_CONTENT = pack(_tuple(_RNG, row) for row in range(BATCH))
