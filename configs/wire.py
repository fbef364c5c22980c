"""What travels between the parts of a run. Read this file first: these are the nouns.

Token ids travel end to end: text is tokenised once, by the prompt source, and never again.

One convention holds for every log-probability on the wire: the *raw* model
log-probability, natural logarithm, float32, temperature 1, no top-p or top-k, one value
per response token, the end-of-sequence token included when it was generated. Sampling
temperature changes how a response is drawn, never what its log-probability means.

Array names end in their axes: ``P`` prompt tokens, ``T`` response tokens, ``C`` corpus
tokens, ``V`` vocabulary, ``K`` the teacher's likeliest tokens.
"""

from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any, Literal, NamedTuple

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


class Uids(list[Uid]):
    """Uids on their way between processes, which look to pickle like plain numbers.

    Ray's pickler asks Python about every object that is none of Python's own plain ones, which
    costs more than all the rest of its way.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Say what pickle is to keep."""
        return _uids_of, ([number for uid in self for number in uid],)


def _uids_of(flat: list[int]) -> Uids:
    return Uids(map(Uid, flat[::3], flat[1::3], flat[2::3]))


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
    reference_logprobs_T: np.ndarray | None = None
    """(T,) float32, log ref(y_i | x, y_<i) by the initial student; None: not asked."""
    teacher_top_ids_TK: np.ndarray | None = None
    """(T, K) int32, the teacher's likeliest tokens at each state, likeliest first; K may be the
    vocabulary. None: the teacher's distribution is not asked."""
    teacher_top_logprobs_TK: np.ndarray | None = None
    """(T, K) float32, their log-probabilities; set together with the ids. What their mass lacks
    to 1 is the tail's."""
    score: float | None = None
    """A judge's score of the response, larger is better: its likeness to y_t in 0..1 (Rouge-L
    over token ids). None: not asked."""

    def __post_init__(self) -> None:
        """Check that every per-token array has one value (or K) per response token."""
        _check_ids("ids_T", self.ids_T, at_least=1)
        for name in PER_TOKEN:
            values = getattr(self, name)
            if values is not None and values.shape != self.ids_T.shape:
                raise ValueError(f"{name} has shape {values.shape}, ids_T {self.ids_T.shape}")
        ids, logprobs = self.teacher_top_ids_TK, self.teacher_top_logprobs_TK
        shapes = {None if values is None else values.shape for values in (ids, logprobs)}
        if len(shapes) > 1 or (ids is not None and ids.shape[:1] != self.ids_T.shape):
            raise ValueError(f"teacher_top_* have shapes {shapes} for {len(self.ids_T)} tokens")

    @property
    def arrays(self) -> list[np.ndarray]:
        """Everything that is set, to be counted or checked."""
        names = ("ids_T", *PER_TOKEN, "teacher_top_ids_TK", "teacher_top_logprobs_TK")
        values = (getattr(self, name) for name in names)
        return [array for array in values if array is not None]


PER_TOKEN = ("behaviour_logprobs_T", "teacher_logprobs_T", "reference_logprobs_T")
"""The arrays of a ``Response`` that hold one log-probability a token."""


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

    Made by ``TeacherServer.judge`` (or of a prompt alone for objectives that learn from the gold
    response). Its head is held by the replay queue; what is in it stays with the maker, as a
    ``PackedTuple``, until ``LearnerWorker`` consumes it.
    """

    prompt: Prompt
    teacher_response: Response | None = None
    """y_t, or the data's own response where the objective visits dataset states. None: the
    objective needs none for this tuple."""
    student_response: Response | None = None
    """y_s; ``behaviour_logprobs_T`` is set. None: the objective needs none for this tuple."""
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
        prompt = (self.prompt.prompt_ids_P, self.prompt.gold_ids_T, self.prompt.corpus_ids_C)
        arrays = [array for array in prompt if array is not None] + self._known()
        return sum(array.nbytes for array in arrays)

    def is_finite(self) -> bool:
        """Return whether no log-probability in it is NaN or infinite.

        Among the teacher's likeliest tokens minus infinity is a probability of 0, and sound.
        """
        for response in (self.teacher_response, self.student_response):
            top = None if response is None else response.teacher_top_logprobs_TK
            if top is not None and not (top < np.inf).all():
                return False
        return all(np.isfinite(array).all() for array in self._known() if array.ndim == 1)

    def _known(self) -> list[np.ndarray]:
        """Return what was drawn and scored, the prompt's own arrays left out."""
        first = self.teacher_first_token_logprobs_V
        found = [] if first is None else [first]
        for response in (self.teacher_response, self.student_response):
            found += [] if response is None else response.arrays
        return found


class TupleHead(NamedTuple):
    """What the queue knows of a tuple, whose contents stay with their maker meanwhile."""

    uid: Uid
    weight_version: int | None
    finite: bool
    """``PreferenceTuple.is_finite``: its maker has looked."""
    nbytes: int
    """Bytes that it holds where it lies: what the queue's byte bound counts."""


class TupleHeads(list[TupleHead]):
    """Heads on their way to the queue, which look to pickle like plain numbers."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Say what pickle is to keep."""
        columns = [[each[column] for each in self] for column in (1, 2, 3)]
        return _heads_of, (Uids(each.uid for each in self), *columns)


def _heads_of(uids: Uids, *columns: Any) -> TupleHeads:
    return TupleHeads(map(TupleHead, uids, *columns))


class PackedTuple(NamedTuple):
    """A ``PreferenceTuple`` on its way to the learner, or to where it is to be redrawn.

    Made by ``configs.packing.pack`` where tuples are made; ``unpack`` gives the tuple back. A named
    tuple: thousands a second are made.
    """

    uid: Uid
    weight_version: int | None
    finite: bool
    payload: np.ndarray
    """(N,) uint8."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.payload.nbytes

    @property
    def head(self) -> TupleHead:
        """What the queue is to know."""
        return TupleHead(self.uid, self.weight_version, self.finite, self.payload.nbytes)


class PackedBatch(list[PackedTuple]):
    """Packed tuples on their way between processes: plain numbers (see ``Uids``), and payloads
    beside them, out of band: they are written to shared memory once, and read there as views.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Say what pickle is to keep; protocols before the fifth know no buffers."""
        heads = [(*each.uid, each.weight_version, each.finite) for each in self]
        kept = PickleBuffer if protocol >= 5 else bytes
        return _batch_of, (heads, [kept(each.payload.data) for each in self])

    def parcel(self) -> "Parcel":
        """Return the batch as its maker answers."""
        return Parcel(TupleHeads(each.head for each in self), self)


class Parcel(NamedTuple):
    """What makes tuples answers: two values, so that Ray can leave the second where it is."""

    heads: TupleHeads
    """For the queue."""
    batch: PackedBatch
    """For the learner."""


def _batch_of(heads: list[tuple[int, int, int, int | None, bool]], payloads: list[Any]) -> Any:
    return PackedBatch(
        PackedTuple(Uid(*uid), version, finite, np.frombuffer(payload, np.uint8))
        for (*uid, version, finite), payload in zip(heads, payloads, strict=True)
    )


class TensorSpec(NamedTuple):
    """Name, shape and dtype (``float32``, ``bfloat16``, ...) of one tensor of a weight push."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    same_as: str | None = None
    """An earlier tensor of which this is another name (a tied output head): it travels once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """Describes one weight push.

    Made by ``LearnerWorker.publish_weights``; checked by ``StudentSampler.load_weights``.
    The tensors travel beside it, each as a flat array of bytes, in the order of ``tensors``.
    """

    version: int
    """The learner's step count when the weights were taken; monotone within a run."""
    tensors: tuple[TensorSpec, ...]
    nbytes: int
    probe_ids: np.ndarray
    """(L,) int32, a fixed sequence; its log-probabilities prove that the weights were loaded
    into every layer, the output head included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReceipt:
    """The sampler's answer to a push: what it now holds, and has yet to prove."""

    version: int
    seconds: float
    """How long generation was paused for the load."""
    nbytes: int
    """Bytes of weights received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightProbe:
    """What the learner says of weights that it published: a sampler must say the same.

    The checksum proves the transport; the log-probabilities prove that every layer was loaded.
    """

    version: int
    checksum: str
    """Hex digest over all bytes, one tensor after the other; empty where none travelled."""
    logprobs: np.ndarray
    """(L-1,) float32, log q(probe_ids[i+1] | probe_ids[:i+1])."""
    tolerance: float
    """Largest absolute difference, in nats, that still counts as the same weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightProof:
    """What a sampler says of the weights that it holds."""

    version: int
    checksum: str
    """Of what came."""
    logprobs: np.ndarray
    """As ``WeightProbe.logprobs``; shorter where the sampler's context is."""


class Draw(NamedTuple):
    """What a sampler answers: two values, so that Ray can leave the first where it is."""

    trajectories: list[Trajectory]
    proof: WeightProof | None
    """Of the weights that drew; None: they are those that the sampler started with."""


def _check_ids(name: str, ids: np.ndarray, *, at_least: int) -> None:
    if ids.ndim != 1 or ids.dtype != np.int32 or len(ids) < at_least:
        raise ValueError(
            f"{name} must be one-dimensional int32 with at least {at_least} ids, "
            f"got {ids.dtype} of shape {ids.shape}"
        )
