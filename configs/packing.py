"""Tuples in their travelling form: one block of bytes each, which only maker and learner open.

A ``PreferenceTuple`` is a dozen small arrays, each of which costs pickle more than its numbers
do. Packed it is one block: a header of fixed size, the references as text, then the arrays as
they lie in memory. Each begins at a multiple of 8 bytes, so that unpacking copies nothing: it
returns read-only views of the block.

    header │ references │ prompt ids │ gold ids │ ... │ log p(y_t) │ ... │ log p(y_s) │ ...
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any

import numpy as np

from configs.wire import FinishReason, PackedBatch, PackedTuple, PreferenceTuple, Prompt, Response

_OF_PROMPT = ("prompt_ids_P", "gold_ids_T", "corpus_ids_C")
_OF_RESPONSE = (
    "ids_T",
    "behaviour_logprobs_T",
    "teacher_logprobs_T",
    "reference_logprobs_T",
    "teacher_top_ids_TK",
    "teacher_top_logprobs_TK",
)
_ARRAYS = len(_OF_PROMPT) + 1 + 2 * len(_OF_RESPONSE)
"""Arrays that a tuple may have: the prompt's, log p(. | x), those of y_t and of y_s."""

_HEADER = Struct("<qi4x" + 2 * "b?6xd" + _ARRAYS * "c3xii")
"""The row; bytes of references. Of y_t and y_s: how it ended, whether it has a score, the score.
Of every array: its type, its length, its width (-1: it has one axis)."""
_SIDES, _SHAPES = 2, 2 + 2 * 3
"""Where, among the header's values, what is said of the responses begins, and of the arrays."""

_FINISH: tuple[FinishReason | None, ...] = (None, "stop", "length")
"""``None``: there is no such response."""
_ABSENT = b"-"
_TYPES = {letter.encode(): np.dtype(letter) for letter in "?bBhHiIlLqQefd"}
"""NumPy's own letters for its types of numbers."""
_NO_ARRAY = (_ABSENT, 0, -1)
_NO_RESPONSE = (0, False, 0.0)

assert _HEADER.size % 8 == 0, _HEADER.size


def pack(tuples: Iterable[PreferenceTuple]) -> PackedBatch:
    """Return tuples as they travel: what makes them for the queue ends with this."""
    return PackedBatch(_pack(item) for item in tuples)


def unpack(packed: Iterable[PackedTuple]) -> list[PreferenceTuple]:
    """Return what ``pack`` was given, in arrays that cannot be written to."""
    return [_unpack(item) for item in packed]


def _pack(item: PreferenceTuple) -> PackedTuple:
    prompt, responses = item.prompt, (item.teacher_response, item.student_response)
    references = json.dumps(prompt.references).encode() if prompt.references else b""
    blocks: list[bytes | memoryview] = [references, _padding(len(references))]
    said: list[bytes | int | float | None] = [prompt.row, len(references)]
    for response in responses:
        said += _NO_RESPONSE if response is None else _about(response)
    for array in _arrays(item):
        if array is None:
            said += _NO_ARRAY
        else:
            said += _shape(array)
            blocks += (np.ascontiguousarray(array).data, _padding(array.nbytes))
    payload = np.frombuffer(b"".join((_HEADER.pack(*said), *blocks)), np.uint8)
    return PackedTuple(item.uid, item.weight_version, item.is_finite(), payload)


def _about(response: Response) -> tuple[int, bool, float]:
    ended = _FINISH.index(response.finish_reason)
    return ended, response.score is not None, response.score or 0.0


def _arrays(item: PreferenceTuple) -> Iterator[np.ndarray | None]:
    """Yield every array that there may be, in the order of the block."""
    for name in _OF_PROMPT:
        yield getattr(item.prompt, name)
    yield item.teacher_first_token_logprobs_V
    for response in (item.teacher_response, item.student_response):
        for name in _OF_RESPONSE:
            yield getattr(response, name, None)


def _shape(array: np.ndarray) -> tuple[bytes, int, int]:
    letter = array.dtype.char.encode()
    assert letter in _TYPES and array.dtype.isnative, f"an array of {array.dtype} cannot travel"
    length, *width = array.shape
    return letter, length, width[0] if width else -1


def _padding(nbytes: int) -> bytes:
    return bytes(-nbytes % 8)


def _unpack(packed: PackedTuple) -> PreferenceTuple:
    said = _HEADER.unpack_from(packed.payload.data)
    start, stop = _HEADER.size, _HEADER.size + said[1]
    references = json.loads(packed.payload[start:stop].tobytes()) if said[1] else ()
    arrays = _views(packed.payload, said[_SHAPES:], start=stop + -stop % 8)
    of_prompt = dict(zip(_OF_PROMPT, arrays, strict=False))
    first, *rest = arrays[len(_OF_PROMPT) :]
    return PreferenceTuple(
        prompt=Prompt(uid=packed.uid, row=said[0], references=tuple(references), **of_prompt),
        teacher_response=_response(said[_SIDES : _SIDES + 3], rest[: len(_OF_RESPONSE)]),
        student_response=_response(said[_SIDES + 3 : _SHAPES], rest[len(_OF_RESPONSE) :]),
        weight_version=packed.weight_version,
        teacher_first_token_logprobs_V=first,
    )


def _views(payload: np.ndarray, shapes: Sequence[Any], *, start: int) -> list[Any]:
    views: list[np.ndarray | None] = []
    for index in range(0, len(shapes), 3):
        letter, length, width = shapes[index : index + 3]
        if letter == _ABSENT:
            views.append(None)
            continue
        shape = (length,) if width < 0 else (length, width)
        view = np.ndarray(shape, _TYPES[letter], payload, start)
        views.append(view)
        start += view.nbytes + -view.nbytes % 8
    return views


def _response(said: Sequence[Any], arrays: Sequence[Any]) -> Response | None:
    ended, scored, score = said
    if not ended:
        return None
    known = dict(zip(_OF_RESPONSE, arrays, strict=True))
    return Response(finish_reason=_FINISH[ended], score=score if scored else None, **known)
