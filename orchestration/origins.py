"""Who draws the response of a tuple: decided by its uid, so that a resumed run decides alike."""

import hashlib
from typing import Literal

from configs.run import RunConfig
from configs.wire import Uid

Origin = Literal["student", "offline", "teacher"]
"""``student``: the samplers that are pushed to; ``offline``: the sampler that keeps the initial
weights; ``teacher``: nobody draws y_s, the tuple is y_t alone."""


def origin_of(uid: Uid, config: RunConfig) -> Origin:
    """Return who draws y_s of this use of a prompt.

    The objective's ``student_share`` of uids get one at all, and of those
    ``negatives.offline_share`` an offline one; each in expectation, independently by uid.
    """
    if _uniform("student", config.seed, uid) >= config.objective.student_share:
        return "teacher"
    offline = _uniform("offline", config.seed, uid) < config.negatives.offline_share
    return "offline" if offline else "student"


def _uniform(question: str, seed: int, uid: Uid) -> float:
    """Return a number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.blake2b(f"{question} {seed} {uid}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
