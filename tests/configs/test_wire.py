"""What travels checks itself when it is made."""

import pickle

import numpy as np
import pytest

from configs.wire import PreferenceTuple, Prompt, Response, Uid


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def prompt() -> Prompt:
    return Prompt(uid=Uid(0, 7, 0), row=3, prompt_ids_P=ids(5, 6), gold_ids_T=ids(9, 2))


def test_uids_order_by_epoch_then_ordinal_then_sample() -> None:
    assert Uid(0, 9, 9) < Uid(1, 0, 0) < Uid(1, 0, 1) < Uid(1, 1, 0)
    assert str(Uid(1, 20, 3)) == "1/20/3"


@pytest.mark.parametrize(
    "wrong", [ids(), np.array([1.0], np.float32), np.array([1], np.int64), ids(1, 2)[None]]
)
def test_a_prompt_refuses_ids_of_another_shape_or_type(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="prompt_ids_P must be one-dimensional int32"):
        Prompt(uid=Uid(0, 0, 0), row=0, prompt_ids_P=wrong)


def test_a_corpus_document_has_at_least_two_tokens() -> None:
    with pytest.raises(ValueError, match="corpus_ids_C"):
        Prompt(uid=Uid(0, 0, 0), row=0, prompt_ids_P=ids(1), corpus_ids_C=ids(1))


def test_a_response_refuses_logprobs_of_another_length() -> None:
    with pytest.raises(ValueError, match="teacher_logprobs_T has shape"):
        Response(ids_T=ids(4, 5), finish_reason="stop", teacher_logprobs_T=np.zeros(3, np.float32))


def test_a_student_response_comes_with_its_version() -> None:
    response = Response(ids_T=ids(4), finish_reason="length")
    with pytest.raises(ValueError, match="set together"):
        PreferenceTuple(prompt=prompt(), student_response=response)
    with pytest.raises(ValueError, match="set together"):
        PreferenceTuple(prompt=prompt(), weight_version=0)
    assert PreferenceTuple(prompt=prompt(), student_response=response, weight_version=0).uid == (
        Uid(0, 7, 0)
    )


def test_bytes_are_those_of_every_array() -> None:
    scored = Response(
        ids_T=ids(4, 5, 6), finish_reason="stop", teacher_logprobs_T=np.zeros(3, np.float32)
    )
    pair = PreferenceTuple(
        prompt=prompt(),
        teacher_response=scored,
        teacher_first_token_logprobs_V=np.zeros(10, np.float32),
    )
    assert pair.nbytes == 4 * (2 + 2 + 3 + 3 + 10)


def test_a_pair_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(PreferenceTuple(prompt=prompt())))
    assert copy.uid == Uid(0, 7, 0)
    assert copy.prompt.gold_ids_T.tolist() == [9, 2]
