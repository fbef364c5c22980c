"""The served model's fingerprint: what it holds, and how a change is noticed."""

from itertools import cycle
from typing import Any

import numpy as np
import pytest

from actors.served_model import ServedModel
from configs.errors import DependencyError
from tests.actors.openai_stub import (
    BROKEN_OFF,
    Answer,
    OpenAiStub,
    draw,
    error,
    score_answer,
    teacher,
    text_answer,
)

BIG = {"id": "big", "root": "/models/big", "max_model_len": 40}
ANOTHER = "now serves another model"


def served(*answers: str, nats: float | None = None, **changes: object) -> ServedModel:
    logprobs = None if nats is None else np.full(10, -nats, np.float32)
    return ServedModel(described=BIG | changes, answers=frozenset(answers), logprobs=logprobs)


def test_a_fingerprint_changes_with_what_the_server_says_and_answers():
    models = [served("one"), served("two"), served("one", root="/else"), served("one", id="small")]
    assert len({model.fingerprint for model in models}) == 4
    assert served("one").fingerprint == served("one").fingerprint
    assert len(served("one").fingerprint) == 16


def test_greedy_answers_that_vary_are_no_part_of_it():
    first = served("one", "two")
    assert first.fingerprint == served("three", "four").fingerprint
    assert first.is_same(served("three"))
    assert not first.is_same(served("one", root="/else"))
    assert served("one").is_same(served("one", "two"))
    assert not served("one").is_same(served("two", "three"))


def test_with_ids_it_ends_in_the_probe_s_nats_and_forgives_what_rounding_moves():
    model = served(nats=4.126)
    assert model.fingerprint.endswith("-4.13")
    assert model.is_same(served(nats=4.14)) and model.has(served(nats=4.14).fingerprint)
    assert not model.is_same(served(nats=4.2)) and not model.has(served(nats=4.2).fingerprint)
    assert not model.has(served("one").fingerprint) and not model.has("nonsense-x")
    assert not model.has(served(nats=4.126, root="/else").fingerprint)


def test_models_of_one_mean_differ_by_their_tokens():
    model = served(nats=4.0)
    other = ServedModel(described=BIG, logprobs=np.array([-3.0, -5.0] * 5, np.float32))
    assert not model.is_same(other)


@pytest.mark.parametrize("tokens", ["text", "ids"])
def test_an_expected_fingerprint_is_kept(tokens: str):
    with OpenAiStub() as stub:
        stub.reply = score_answer if tokens == "ids" else stub.reply
        found = teacher(stub, tokens=tokens).fingerprint
        assert teacher(stub, tokens=tokens, fingerprint=found).fingerprint == found


def changed_root(stub: OpenAiStub) -> None:
    stub.model = BIG | {"root": "/models/other"}


def changed_answer(stub: OpenAiStub) -> None:
    stub.reply = lambda body: text_answer(" else")


def changed_name(stub: OpenAiStub) -> None:
    stub.reply = lambda body: text_answer(" answer", model="big-2")


@pytest.mark.parametrize("status", [503, BROKEN_OFF])
@pytest.mark.parametrize("change", [changed_root, changed_answer, changed_name])
def test_a_model_that_changed_during_an_interruption_ends_the_run(change: Any, status: int):
    with OpenAiStub() as stub:
        engine = teacher(stub)
        draw(engine, "the fox")
        change(stub)
        draw(engine, "the fox")  # nothing was interrupted, so nobody looked
        stub.answer_next(Answer(error("restarting"), status))
        with pytest.raises(DependencyError, match=f"{ANOTHER}.*{engine.fingerprint}"):
            draw(engine, "the fox")


def test_scores_that_moved_during_an_interruption_end_the_run():
    with OpenAiStub() as stub:
        stub.reply = score_answer
        engine = teacher(stub, tokens="ids")
        stub.reply = lambda body: score_answer(body, logprob=-2.1)
        stub.answer_next(Answer(error("restarting"), 503))
        with pytest.raises(DependencyError, match=ANOTHER):
            engine.prompt_logprobs([np.array([5, 6, 7])])


def test_an_interruption_that_leaves_the_model_alone_is_survived():
    with OpenAiStub() as stub:
        engine = teacher(stub)
        before = len(stub.asked("/models"))
        stub.answer_next(Answer(error("restarting"), 503))
        draw(engine, "the fox")
        draw(engine, "the fox")
        assert len(stub.asked("/models")) == before + 1


def test_a_change_without_an_interruption_is_noticed_when_the_next_look_is_due(
    monkeypatch: pytest.MonkeyPatch,
):
    with OpenAiStub() as stub:
        engine = teacher(stub)
        changed_root(stub)
        draw(engine, "the fox")
        monkeypatch.setattr("actors.model_watch.CHECK_SECONDS", 0.0)
        with pytest.raises(DependencyError, match=ANOTHER):
            draw(engine, "the fox")


def test_a_server_that_answers_greedily_in_several_ways_is_still_one_model(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("actors.model_watch.CHECK_SECONDS", 0.0)
    with OpenAiStub() as stub:
        words = cycle(["one", "two", "three", "four", "five"])
        stub.reply = lambda body: text_answer(next(words))
        engine = teacher(stub)
        for _ in range(3):
            draw(engine, "the fox")
        assert engine.fingerprint == teacher(stub).fingerprint


def test_a_server_without_a_list_of_models_is_known_by_its_answers():
    with OpenAiStub() as stub:
        stub.model = {"id": "another name"}
        assert teacher(stub).fingerprint == teacher(stub).fingerprint
