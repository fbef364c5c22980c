"""What travels between the parts of a run. Read this file first: these are the nouns.

Token ids travel end to end: text is tokenised once, by the prompt source, and never again.

One convention holds for every log-probability on the wire: the *raw* model
log-probability, natural logarithm, float32, temperature 1, no top-p or top-k, one value
per response token, the end-of-sequence token included when it was generated. Sampling
temperature changes how a response is drawn, never what its log-probability means.

Array names end in their axes: ``P`` prompt tokens, ``T`` response tokens, ``C`` corpus
tokens, ``V`` vocabulary.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

FinishReason = Literal["stop", "length"]
"""``stop``: the end-of-sequence token was generated (and is the last id of the response);
``length``: the response was cut at ``max_new_tokens``."""


class Uid(NamedTuple):
    """Names one *use* of a prompt, for ever: the ledger's key.

    ``ordinal`` is a position in the epoch's seeded permutation of the data set and
    ``sample`` counts the student responses drawn for that use. Uids order as tuples, which
    is the order in which prompts are issued.
    """

    epoch: int
    ordinal: int
    sample: int

    def __str__(self) -> str:
        """Return the ledger's spelling, ``epoch/ordinal/sample``."""
        return f"{self.epoch}/{self.ordinal}/{self.sample}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One use of a data row. Made by ``PromptSource``; carried unchanged to the learner.

    >>> Prompt(uid=Uid(0, 7, 0), row=3, prompt_ids_P=np.array([5, 6], np.int32)).uid
    Uid(epoch=0, ordinal=7, sample=0)
    """

    uid: Uid
    row: int
    """Zero-based row in the data file."""
    prompt_ids_P: np.ndarray
    """(P,) int32, P >= 1."""
    gold_ids_T: np.ndarray | None = None
    """(T,) int32, the row's own response with its end-of-sequence token; None: it has none."""
    corpus_ids_C: np.ndarray | None = None
    """(C,) int32, C >= 2, the corpus document d that the language-model loss is taken on
    when this use is learned from; None: no corpus file."""
    references: tuple[str, ...] = ()
    """Acceptable answers as text, for evaluation only."""

    def __post_init__(self) -> None:
        """Check the lengths that the docstrings promise."""
        _check_ids("prompt_ids_P", self.prompt_ids_P, at_least=1)
        if self.gold_ids_T is not None:
            _check_ids("gold_ids_T", self.gold_ids_T, at_least=1)
        if self.corpus_ids_C is not None:
            _check_ids("corpus_ids_C", self.corpus_ids_C, at_least=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Response tokens and what is known about them.

    >>> Response(ids_T=np.array([9, 2], np.int32), finish_reason="stop").teacher_logprobs_T
    """

    ids_T: np.ndarray
    """(T,) int32, T >= 1."""
    finish_reason: FinishReason
    behaviour_logprobs_T: np.ndarray | None = None
    """(T,) float32, log mu(y_i | x, y_<i) under the weights that drew the response, as the
    sampler computed it; None: the response was not drawn by the student."""
    teacher_logprobs_T: np.ndarray | None = None
    """(T,) float32, log p(y_i | x, y_<i); None: not scored (yet)."""

    def __post_init__(self) -> None:
        """Check that every per-token array has one value per response token."""
        _check_ids("ids_T", self.ids_T, at_least=1)
        for name in ("behaviour_logprobs_T", "teacher_logprobs_T"):
            values = getattr(self, name)
            if values is not None and values.shape != self.ids_T.shape:
                raise ValueError(f"{name} has shape {values.shape}, ids_T {self.ids_T.shape}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A fresh student response y_s. Made by ``StudentSampler.generate``, read by the teacher.

    One version holds for the whole trajectory: weights never change inside a response.
    """

    prompt: Prompt
    response: Response
    """``behaviour_logprobs_T`` is set."""
    weight_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceTuple:
    """What the learner consumes: (x, y_t, y_s, log-probabilities).

    Made by ``TeacherServer.score`` (or by ``PromptSource`` alone for objectives that learn
    from the gold response); held by the replay queue; consumed by ``LearnerWorker``.
    """

    prompt: Prompt
    teacher_response: Response | None = None
    """y_t; ``teacher_logprobs_T`` is set. None: the objective needs no teacher response."""
    student_response: Response | None = None
    """y_s; ``behaviour_logprobs_T`` is set, and ``teacher_logprobs_T`` once scored.
    None: the objective needs no student response."""
    weight_version: int | None = None
    """The version that drew ``student_response``; None exactly when that is None."""
    teacher_first_token_logprobs_V: np.ndarray | None = None
    """(V,) float32, log p(. | x): makes the first-token divergences exact. None: not asked."""

    def __post_init__(self) -> None:
        """Check that a student response always names the version that drew it."""
        if (self.student_response is None) != (self.weight_version is None):
            raise ValueError("student_response and weight_version are set together or not at all")

    @property
    def uid(self) -> Uid:
        """The ledger's key of this use."""
        return self.prompt.uid

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays: what the queue's byte bound counts."""
        arrays = [
            self.prompt.prompt_ids_P,
            self.prompt.gold_ids_T,
            self.prompt.corpus_ids_C,
            self.teacher_first_token_logprobs_V,
        ]
        for response in (self.teacher_response, self.student_response):
            if response is not None:
                arrays += [
                    response.ids_T,
                    response.behaviour_logprobs_T,
                    response.teacher_logprobs_T,
                ]
        return sum(array.nbytes for array in arrays if array is not None)


class TensorSpec(NamedTuple):
    """Name, shape and dtype (``float32``, ``bfloat16``, ...) of one tensor of a weight push."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """Describes one weight push, and carries the proof that the receiver must reproduce.

    Made by ``LearnerWorker.publish_weights``; checked by ``StudentSampler.load_weights``.
    The tensors travel beside it, as one flat byte buffer in the order of ``tensors``.
    """

    version: int
    """The learner's step count when the weights were taken; monotone within a run."""
    tensors: tuple[TensorSpec, ...]
    nbytes: int
    checksum: str
    """Hex digest over the flat buffer: proves the transport."""
    probe_ids: np.ndarray
    """(L,) int32, a fixed sequence; its log-probabilities prove that the weights were loaded
    into every layer, the output head included."""
    probe_logprobs: np.ndarray
    """(L-1,) float32, log q(probe_ids[i+1] | probe_ids[:i+1]) by the learner."""
    probe_tolerance: float
    """Largest absolute difference, in nats, that still counts as the same weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightProof:
    """The sampler's answer to a push: what it now holds, and how closely it agrees."""

    version: int
    probe_difference: float
    """Largest absolute difference over the probe's log-probabilities, in nats."""
    seconds: float
    """How long generation was paused for the load."""
    nbytes: int
    """Bytes of weights received."""


def _check_ids(name: str, ids: np.ndarray, *, at_least: int) -> None:
    if ids.ndim != 1 or ids.dtype != np.int32 or len(ids) < at_least:
        raise ValueError(
            f"{name} must be one-dimensional int32 with at least {at_least} ids, "
            f"got {ids.dtype} of shape {ids.shape}"
        )
