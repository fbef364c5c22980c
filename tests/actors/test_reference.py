"""The reference: both responses by the initial student, y_t once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.reference import ReferenceServer
from configs.errors import DataError, NonFiniteError
from configs.packing import pack, unpack
from configs.wire import PreferenceTuple, Prompt, Response
from tests.actors.small_teacher import (
    PROMPTS,
    break_token,
    make_prompt,
    make_trajectory,
    plain_logprobs,
    save_teacher,
)
from tests.builders import assert_same, ids


def make_server(model: str, cache_folder: Path | None = None) -> ReferenceServer:
    return ReferenceServer(
        model,
        dtype="float32",
        trust_remote_code=False,
        batch_tokens=256,
        cache_folder=cache_folder,
    )


def pair(prompt: Prompt, teacher: tuple[int, ...], student: tuple[int, ...]) -> PreferenceTuple:
    return PreferenceTuple(
        prompt=prompt,
        teacher_response=Response(
            ids_T=ids(*teacher),
            finish_reason="stop",
            teacher_logprobs_T=np.full(len(teacher), -0.5, np.float32),
        ),
        student_response=make_trajectory(prompt, *student).response,
        weight_version=3,
    )


def reference(response: Response | None) -> np.ndarray:
    assert response is not None and response.reference_logprobs_T is not None
    return response.reference_logprobs_T


PAIRS = [pair(PROMPTS[0], (8, 7, 1), (3,)), pair(PROMPTS[1], (2, 1), (8, 8, 8, 1))]


def test_both_responses_get_the_initial_student_s_log_probabilities_and_keep_the_rest(
    tmp_path: Path,
):
    model = save_teacher(tmp_path / "q")
    annotated = unpack(make_server(model, tmp_path).annotate(pack(PAIRS)).batch)
    for before, after in zip(PAIRS, annotated, strict=True):
        for side in ("teacher_response", "student_response"):
            old, new = getattr(before, side), getattr(after, side)
            expected_T = plain_logprobs(model, after.prompt.prompt_ids_P, new.ids_T)
            np.testing.assert_allclose(reference(new), expected_T, atol=1e-5)
            assert_same(replace(new, reference_logprobs_T=None), old)
        assert after.weight_version == 3


def test_an_answer_is_scored_once_and_a_student_s_response_every_time(tmp_path: Path):
    model = save_teacher(tmp_path / "q")
    first = make_server(model, tmp_path)
    made = unpack(first.annotate(pack(PAIRS)).batch)
    assert first.statistics()["scored_tokens"] == 3 + 2 + 1 + 4
    first.annotate(pack(PAIRS))
    assert first.statistics()["scored_tokens"] == 10 + 5
    first.close()

    second = make_server(model, tmp_path)
    found = unpack(second.annotate(pack(PAIRS)).batch)
    assert second.statistics() == {
        "cache_hits": 2,
        "cache_misses": 0,
        "scored_tokens": 5,
        "cache_corrupt": 0,
        "cache_failures": 0,
    }
    for old, new in zip(made, found, strict=True):
        left, right = reference(old.teacher_response), reference(new.teacher_response)
        assert left.tobytes() == right.tobytes()


def test_samples_of_one_prompt_share_their_answer_s_score(tmp_path: Path):
    twins = [pair(make_prompt(5, 6, sample=i), (7, 1), (3 + i,)) for i in range(3)]
    server = make_server(save_teacher(tmp_path / "q"))
    annotated = unpack(server.annotate(pack(twins)).batch)
    assert server.statistics()["cache_misses"] == 1
    assert server.statistics()["scored_tokens"] == 2 + 3
    answers = [reference(item.teacher_response).tolist() for item in annotated]
    assert answers[0] == answers[1] == answers[2]


def test_a_pair_that_comes_back_with_a_new_student_response_has_only_that_scored(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "q"))
    (known,) = unpack(server.annotate(pack(PAIRS[:1])).batch)
    redrawn = replace(known, student_response=make_trajectory(PROMPTS[0], 4, 4).response)
    before = server.statistics()["scored_tokens"]
    (again,) = unpack(server.annotate(pack([redrawn])).batch)
    assert server.statistics()["scored_tokens"] == before + 2
    assert_same(again.teacher_response, known.teacher_response)
    assert server.annotate([]) == ([], [])


def test_another_initial_student_has_a_cache_of_its_own(tmp_path: Path):
    for seed, name in enumerate(("one", "two")):
        server = make_server(save_teacher(tmp_path / name, seed=seed), tmp_path)
        server.annotate(pack(PAIRS))
        assert server.statistics()["cache_misses"] == 2
    assert len(list(tmp_path.glob("reference-*.sqlite3"))) == 2


def test_a_log_probability_that_is_none_stays_in_its_tuple_and_is_not_cached(tmp_path: Path):
    model = save_teacher(tmp_path / "q")
    break_token(model, 9)  # the second prompt's only token
    heads, _ = make_server(model, tmp_path).annotate(pack(PAIRS))
    assert [head.finite for head in heads] == [True, False]
    again = make_server(model, tmp_path)
    again.annotate(pack(PAIRS))
    assert again.statistics()["cache_misses"] == 1


def test_an_initial_student_that_gives_no_numbers_is_an_error_at_the_start(tmp_path: Path):
    model = save_teacher(tmp_path / "q")
    make_server(model).warm_up()
    break_token(model, 0)
    with pytest.raises(NonFiniteError, match=rf"the initial student {model} gives"):
        make_server(model).warm_up()


def test_a_response_that_the_student_cannot_take_names_the_prompt(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "q"))
    with pytest.raises(DataError, match=r"prompt 0/1/0 .* outside the student's vocabulary of 61"):
        server.annotate(pack([pair(PROMPTS[1], (61,), (3,))]))
    with pytest.raises(DataError, match=r"makes 33 tokens, too long for the student's context"):
        server.annotate(pack([pair(PROMPTS[1], (3,) * 32, (3,))]))
