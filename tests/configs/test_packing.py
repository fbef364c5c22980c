"""A tuple that travelled is the tuple that was sent, to the last bit."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from configs.packing import pack, unpack
from configs.wire import PackedBatch, PreferenceTuple, Prompt, Response, Uid
from tests.builders import assert_same, pair, prompt

FLOATS = st.sampled_from([np.float32, np.float32, np.float16, np.float64])
NUMBERS = st.integers(-(2**40), 2**40)


def ids(least: int) -> Any:
    return arrays.arrays(np.int32, st.integers(least, 9))


def floats(shape: Any) -> Any:
    """Every number that there is: minus infinity, NaN, minus zero, and those close to it."""
    return FLOATS.flatmap(lambda kind: arrays.arrays(kind, shape))


@st.composite
def responses(draw: st.DrawFn) -> Response:
    ids_T = draw(ids(1))
    T, K = len(ids_T), draw(st.integers(0, 4))
    per_token = st.none() | floats(T)
    has_top = draw(st.booleans())
    return Response(
        ids_T=ids_T,
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        behaviour_logprobs_T=draw(per_token),
        teacher_logprobs_T=draw(per_token),
        reference_logprobs_T=draw(per_token),
        teacher_top_ids_TK=draw(arrays.arrays(np.int32, (T, K))) if has_top else None,
        teacher_top_logprobs_TK=draw(floats((T, K))) if has_top else None,
        score=draw(st.none() | st.floats(allow_nan=False)),
    )


@st.composite
def tuples(draw: st.DrawFn) -> PreferenceTuple:
    student = draw(st.none() | responses())
    return PreferenceTuple(
        prompt=Prompt(
            uid=Uid(draw(NUMBERS), draw(NUMBERS), draw(NUMBERS)),
            row=draw(NUMBERS),
            prompt_ids_P=draw(ids(1)),
            gold_ids_T=draw(st.none() | ids(1)),
            corpus_ids_C=draw(st.none() | ids(2)),
            references=draw(st.lists(st.text(), max_size=3).map(tuple)),
        ),
        teacher_response=draw(st.none() | responses()),
        student_response=student,
        weight_version=None if student is None else draw(NUMBERS),
        teacher_first_token_logprobs_V=draw(st.none() | floats(draw(st.integers(0, 7)))),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(tuples(), max_size=3))
def test_every_tuple_arrives_as_it_was(sent: list[PreferenceTuple]) -> None:
    for protocol in (4, 5):
        check_arrival(sent, pickle.loads(pickle.dumps(pack(sent), protocol)))


def check_arrival(sent: list[PreferenceTuple], arrived: PackedBatch) -> None:
    assert type(arrived) is PackedBatch
    assert_same(unpack(arrived), sent)
    for packed, item in zip(arrived, sent, strict=True):
        assert packed.uid == item.uid
        assert packed.weight_version == item.weight_version
        assert packed.finite == item.is_finite()
        assert packed.nbytes >= item.nbytes


def test_what_comes_back_is_equal_and_a_difference_of_one_bit_is_none() -> None:
    """The comparison of these tests can fail."""
    sent = pair(prompt(3))
    (arrived,) = unpack(pack([sent]))
    assert_same(arrived, sent)
    assert arrived.student_response is not None
    values = np.array([-2.0, -2.0, np.nextafter(np.float32(-2.0), np.float32(0))], np.float32)
    other = replace(arrived.student_response, teacher_logprobs_T=values)
    with pytest.raises(AssertionError):
        assert_same(replace(arrived, student_response=other), sent)


def test_unpacking_copies_nothing_and_what_it_gives_cannot_be_written_to() -> None:
    (packed,) = pack([pair(prompt())])
    (item,) = unpack([packed])
    assert item.student_response is not None
    for array in (item.prompt.prompt_ids_P, *item.student_response.arrays):
        assert np.shares_memory(array, packed.payload)
        assert array.flags.aligned and not array.flags.writeable


def test_a_payload_travels_beside_the_pickle_and_is_not_copied_into_it() -> None:
    buffers: list[pickle.PickleBuffer] = []
    packed = pack([pair(prompt())] * 64)
    written = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 64
    assert len(written) < 64 * 20
    (again, *_) = pickle.loads(written, buffers=buffers)
    assert np.shares_memory(again.payload, packed[0].payload)


def test_arrays_that_lie_otherwise_in_memory_are_packed_in_order() -> None:
    ids_TK = np.arange(12, dtype=np.int32).reshape(3, 4)
    response = Response(
        ids_T=np.arange(6, dtype=np.int32)[::2],
        finish_reason="length",
        teacher_top_ids_TK=np.asfortranarray(ids_TK),
        teacher_top_logprobs_TK=np.zeros((4, 3), np.float32).T,
    )
    (item,) = unpack(pack([PreferenceTuple(prompt=prompt(), teacher_response=response)]))
    assert item.teacher_response is not None
    assert item.teacher_response.ids_T.tolist() == [0, 2, 4]
    assert item.teacher_response.teacher_top_ids_TK is not None
    assert item.teacher_response.teacher_top_ids_TK.tolist() == ids_TK.tolist()


def test_an_array_of_objects_or_of_another_byte_order_is_a_programmer_s_error() -> None:
    for values in (np.array([0.5, 1.0, 2.0], ">f4"), np.array([None] * 3, object)):
        response = Response(
            ids_T=np.arange(3, dtype=np.int32), finish_reason="stop", teacher_logprobs_T=values
        )
        item = PreferenceTuple(prompt=prompt(), teacher_response=response)
        with pytest.raises(AssertionError, match="cannot travel"):
            pack([item])


@settings(max_examples=100, deadline=None)
@given(st.lists(tuples(), max_size=3))
def test_heads_arrive_as_they_were(sent: list[PreferenceTuple]) -> None:
    heads = pack(sent).parcel().heads
    for protocol in (4, 5):
        assert pickle.loads(pickle.dumps(heads, protocol)) == heads
    for head, item in zip(heads, sent, strict=True):
        assert (head.uid, head.weight_version) == (item.uid, item.weight_version)
        assert (head.finite, head.nbytes >= item.nbytes) == (item.is_finite(), True)
