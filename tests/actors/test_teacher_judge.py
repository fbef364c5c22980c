"""What the teacher makes of prompts, answers and trajectories: only what an objective needs."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.objective import Need
from configs.packing import unpack
from tests.actors.small_teacher import (
    PROMPTS,
    VOCAB,
    FakeEngine,
    logprobs,
    make_prompt,
    make_server,
    make_trajectory,
    plain_distribution,
    plain_logprobs,
    save_teacher,
    top,
)
from tests.builders import assert_same

DISTRIBUTION: tuple[Need, ...] = (
    "teacher_response",
    "student_response",
    "teacher_logprobs",
    "teacher_distribution",
)


@pytest.mark.parametrize("first_token", [True, False])
def test_a_pair_gets_its_answer_its_trajectory_and_the_log_probabilities_of_both(
    tmp_path: Path, first_token: bool
):
    model = save_teacher(tmp_path / "p")
    server = make_server(model, engine=FakeEngine(), first_token_distribution=first_token)
    drawn = [
        make_trajectory(PROMPTS[0], 3, 1),
        make_trajectory(PROMPTS[1], 8, 8, 8, 2, 1, version=4),
        make_trajectory(PROMPTS[2], 60),
    ]
    answers = server.respond(PROMPTS)

    tuples = unpack(server.judge(PROMPTS, answers, drawn).batch)

    assert [item.weight_version for item in tuples] == [3, 4, 3]
    for item, prompt, answer, trajectory in zip(tuples, PROMPTS, answers, drawn, strict=True):
        assert_same(item.prompt, prompt)
        assert_same(item.teacher_response, answer)
        student = item.student_response
        assert student is not None and student.score is None
        assert_same(student.ids_T, trajectory.response.ids_T)
        assert_same(student.behaviour_logprobs_T, trajectory.response.behaviour_logprobs_T)
        expected_TV = plain_distribution(model, prompt.prompt_ids_P, student.ids_T)
        expected_T = expected_TV[np.arange(len(student.ids_T)), student.ids_T]
        np.testing.assert_allclose(logprobs(student), expected_T, atol=1e-5)
        assert student.teacher_top_ids_TK is None
        if first_token:
            assert item.teacher_first_token_logprobs_V is not None
            np.testing.assert_allclose(
                item.teacher_first_token_logprobs_V, expected_TV[0], atol=1e-5
            )
        else:
            assert item.teacher_first_token_logprobs_V is None


def test_trajectories_are_found_by_uid_whoever_drew_them(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), engine=FakeEngine())
    fresh = [make_trajectory(PROMPTS[2], 20), make_trajectory(PROMPTS[0], 21)]
    offline = [make_trajectory(PROMPTS[1], 22, version=0)]
    tuples = unpack(server.judge(PROMPTS, server.respond(PROMPTS), fresh, offline).batch)
    students = [item.student_response for item in tuples]
    assert [student.ids_T.tolist() for student in students if student] == [[21], [22], [20]]
    assert [item.weight_version for item in tuples] == [3, 0, 3]


def test_rollouts_hold_one_response_each_and_its_distribution(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    server = make_server(model, engine=FakeEngine(), needs=DISTRIBUTION, distribution_top_k=5)
    answers = server.respond([PROMPTS[0], PROMPTS[2]])
    assert server.statistics()["scored_tokens"] == 0  # judge's forward will tell

    tuples = unpack(server.judge(PROMPTS, answers, [make_trajectory(PROMPTS[1], 8, 2, 1)]).batch)

    sides = [(item.teacher_response, item.student_response) for item in tuples]
    assert [one is None for one, _ in sides] == [False, True, False]
    assert [two is None for _, two in sides] == [True, False, True]
    firsts = [item.teacher_first_token_logprobs_V for item in tuples]
    assert [first is None for first in firsts] == [True, False, True]
    for item, (teacher, student) in zip(tuples, sides, strict=True):
        response = teacher or student
        assert response is not None
        expected_TV = plain_distribution(model, item.prompt.prompt_ids_P, response.ids_T)
        ids_TK, logprobs_TK = top(response)
        assert (ids_TK == np.argsort(-expected_TV, axis=1)[:, :5]).all()
        np.testing.assert_allclose(
            logprobs_TK, np.take_along_axis(expected_TV, ids_TK, axis=1), atol=1e-5
        )
        rows = np.arange(len(response.ids_T))
        np.testing.assert_allclose(logprobs(response), expected_TV[rows, response.ids_T], atol=1e-5)
        assert (ids_TK.dtype, logprobs_TK.dtype) == (np.int32, np.float32)
        assert (response.behaviour_logprobs_T is None) == (teacher is not None)


def test_the_whole_vocabulary_is_a_distribution(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), needs=DISTRIBUTION, distribution_top_k=None)
    (item,) = unpack(server.judge(PROMPTS[:1], [], [make_trajectory(PROMPTS[0], 8, 2, 1)]).batch)
    ids_TK, logprobs_TK = top(item.student_response)
    assert np.sort(ids_TK, axis=1).tolist() == [list(range(VOCAB))] * 3
    np.testing.assert_allclose(np.exp(logprobs_TK.astype(np.float64)).sum(1), 1, atol=1e-5)


def test_more_likeliest_tokens_than_the_vocabulary_has_are_refused_at_once(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    with pytest.raises(ConfigError, match=r"distribution_top_k is 62, and .* has 61 tokens"):
        make_server(model, needs=DISTRIBUTION, distribution_top_k=62)
    make_server(model, distribution_top_k=62)  # nobody asks for them


def test_an_answer_that_is_judged_again_with_a_new_trajectory_is_not_scored_again(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), engine=FakeEngine())
    answers, drawn = server.respond(PROMPTS[:1]), [make_trajectory(PROMPTS[0], 8, 2, 1)]
    (pair,) = unpack(server.judge(PROMPTS[:1], answers, drawn).batch)
    assert pair.teacher_response is not None
    before = server.statistics()["scored_tokens"]
    drawn = [make_trajectory(PROMPTS[0], 4, 4, version=9)]
    (again,) = unpack(server.judge([pair.prompt], [pair.teacher_response], drawn).batch)
    assert again.weight_version == 9
    assert_same(again.teacher_response, pair.teacher_response)
    assert server.statistics()["scored_tokens"] == before + 2


def test_scores_are_the_likeness_to_the_answer_and_ask_for_no_forward(tmp_path: Path):
    needs: tuple[Need, ...] = ("teacher_response", "student_response", "response_score")
    server = make_server(save_teacher(tmp_path / "p"), needs=needs, source="gold")
    prompts = [
        make_prompt(5, ordinal=0, gold=[7, 8, 9, 1]),
        make_prompt(5, ordinal=1, gold=[7, 8, 1]),
    ]
    drawn = [make_trajectory(prompts[0], 7, 3, 9), make_trajectory(prompts[1], 3, 3)]
    tuples = unpack(server.judge(prompts, server.respond(prompts), drawn).batch)
    # LCS of (7 8 9) and (7 3 9) is 2: F = 2 * 2 / 6.
    scores = [item.student_response.score for item in tuples if item.student_response]
    assert scores == [pytest.approx(2 / 3), 0.0]
    assert [item.teacher_response.score for item in tuples if item.teacher_response] == [1.0, 1.0]
    assert server.statistics()["scored_tokens"] == 0


def test_text_alone_makes_a_tuple_of_an_answer(tmp_path: Path):
    server = make_server(
        save_teacher(tmp_path / "p"), engine=FakeEngine(), needs=("teacher_response",)
    )
    answers = server.respond(PROMPTS)
    tuples = unpack(server.judge(PROMPTS, answers, []).batch)
    assert_same([item.teacher_response for item in tuples], answers)
    assert all(item.student_response is None for item in tuples)


def test_evaluation_may_have_responses_scored_that_the_objective_does_not(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    server = make_server(model, needs=("teacher_response",))
    response = make_trajectory(PROMPTS[0], 8, 2, 1).response
    (scored,), (first_V,) = server.score_responses([PROMPTS[0]], [response])
    expected_T = plain_logprobs(model, PROMPTS[0].prompt_ids_P, response.ids_T)
    np.testing.assert_allclose(logprobs(scored), expected_T, atol=1e-5)
    assert first_V is None
