"""What a server's teacher sends and makes of the answers: as text, and as token ids."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from actors.engine_scoring import EngineScorer
from actors.malformed import MalformedAnswerError
from actors.openai_format import TextFormat
from actors.served_model import PROBE
from configs.errors import ConfigError, DataError
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig
from tests.actors.openai_stub import (
    Answer,
    OpenAiStub,
    draw,
    greedy,
    ids_answer,
    prompts,
    score_answer,
    small_tokenizer,
    teacher,
    text_answer,
)

EOS = 0


def token_ids(text: str) -> list[int]:
    return small_tokenizer()(text)["input_ids"]


def scoring(body: dict[str, Any]) -> Any:
    """A server that scores and, asked to draw, gives two ids and the end."""
    return (
        score_answer(body)
        if "prompt_logprobs" in body
        else ids_answer([7, 9, EOS][: body["max_tokens"]])
    )


def test_a_prompt_travels_as_its_text_with_the_sampling_of_the_call():
    with OpenAiStub() as stub:
        engine = teacher(stub)
        sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=5)
        engine.generate(prompts("the fox: "), sampling=sampling, seeds=[2**62 + 3])
        assert stub.requests[-1].path == "/v1/completions"
        assert stub.requests[-1].body == {
            "model": "big",
            "prompt": "the fox: ",
            "max_tokens": 5,
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 3,
        }


def test_a_chat_server_gets_the_text_as_the_user_s_message():
    with OpenAiStub() as stub:
        (response,) = draw(teacher(stub, api="chat"), "the fox")
        assert stub.requests[-1].path == "/v1/chat/completions"
        body = stub.requests[-1].body or {}
    assert body["messages"] == [{"role": "user", "content": "the fox"}]
    assert "prompt" not in body
    assert response.ids_T.tolist() == [*token_ids(" answer"), EOS]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_beginning_that_the_server_puts_there_itself_is_not_sent(api: str):
    tokenizer = deepcopy(small_tokenizer())
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", EOS)]
    )
    config = OpenAiTeacherConfig.model_validate({"type": "openai", "model": "big", "api": api})
    ids = tokenizer("a dog")["input_ids"]
    assert ids[0] == EOS
    body = TextFormat(config, tokenizer).request(np.array(ids, np.int32), 0, greedy())
    sent = body["prompt"] if api == "completions" else body["messages"][0]["content"]
    assert sent == "a dog"


@pytest.mark.parametrize(
    ("text", "finish_reason", "longest", "ids", "finished"),
    [
        (" an answer", "stop", 8, [*token_ids(" an answer"), EOS], "stop"),
        (" an answer", "length", 8, token_ids(" an answer"), "length"),
        (" an answer", "stop", 2, token_ids(" an answer")[:2], "length"),
        ("", "stop", 8, [EOS], "stop"),
        (None, "length", 8, [EOS], "stop"),
        (" <|endoftext|>", "stop", 40, None, "stop"),
        # Half a surrogate pair: an emoji that was cut.
        (" answer\ud83d", "length", 8, token_ids(" answer\ufffd"), "length"),
    ],
)
def test_a_response_s_text_becomes_the_student_s_tokens(
    text: str | None, finish_reason: str, longest: int, ids: list[int] | None, finished: str
):
    with OpenAiStub() as stub:
        stub.reply = lambda body: text_answer(text, finish_reason)
        for api in ("completions", "chat"):
            (response,) = draw(teacher(stub, api=api), "the fox", sampling=greedy(longest))
            if ids is not None:
                assert response.ids_T.tolist() == ids
            else:  # text that spells the end is text
                assert response.ids_T.tolist().count(EOS) == 1
            assert response.finish_reason == finished
            assert response.ids_T.dtype == np.int32
            assert response.behaviour_logprobs_T is None


def test_a_teacher_of_text_has_no_log_probabilities_and_no_context_of_ours():
    with OpenAiStub() as stub:
        engine = teacher(stub)
        (ids,) = prompts("the fox")
        with pytest.raises(ConfigError, match=r"teacher\.tokens=text gives no log-prob"):
            engine.prompt_logprobs([ids])
        with pytest.raises(ConfigError, match=r"teacher\.tokens=text gives no log-prob"):
            engine.prompt_distributions([ids], 2)
        assert engine.context > 10**9 and engine.vocab_size is None
        assert engine.generate([], sampling=greedy(), seeds=[]) == []


def test_ids_travel_as_ids_and_come_back_with_their_log_probabilities():
    with OpenAiStub() as stub:
        stub.reply = scoring
        engine = teacher(stub, tokens="ids")
        sampling = Sampling(temperature=0.5, top_p=0.9, max_new_tokens=100)
        prompt = np.arange(3, 33, dtype=np.int32)
        (response,) = engine.generate([prompt], sampling=sampling, seeds=[2**62])
        body = stub.requests[-1].body or {}
    assert body["prompt"] == list(range(3, 33))
    assert body["max_tokens"] == 10  # the context of 40 ends there
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.5, 0.9, 2**62)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert response.ids_T.tolist() == [7, 9, EOS]
    assert response.finish_reason == "stop"
    assert response.behaviour_logprobs_T is not None
    assert response.behaviour_logprobs_T.tolist() == [-1.0, -2.0, -3.0]


def test_a_prompt_that_fills_the_context_is_refused():
    with OpenAiStub() as stub:
        stub.reply = scoring
        engine = teacher(stub, tokens="ids")
        assert engine.context == 40
        with pytest.raises(DataError, match="prompt 1 of the batch has 40 tokens"):
            engine.generate(
                [np.full(39, 5, np.int32), np.full(40, 5, np.int32)],
                sampling=greedy(),
                seeds=[0, 1],
            )


def test_log_probabilities_are_looked_up_by_token_and_not_a_number_where_there_is_none():
    def reply(body: dict[str, Any]) -> Any:
        answer = score_answer(body)
        if body["prompt"] == [5, 6, 7]:
            rows = [None, {"9": {"logprob": -0.1}, "6": {"logprob": -3.0}}, None]
            answer["choices"][0]["prompt_logprobs"] = rows
        return answer

    with OpenAiStub() as stub:
        stub.reply = reply
        (found,) = teacher(stub, tokens="ids").prompt_logprobs([np.array([5, 6, 7, 8])])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [-3.0, np.nan, -2.0])


def test_the_likeliest_tokens_come_in_order_and_the_one_that_stands_there_only_if_it_is_one():
    def reply(body: dict[str, Any]) -> Any:
        answer = score_answer(body)
        if body["prompt_logprobs"] == 2:
            state = {"9": -0.5, "6": -3.0, "4": -0.25}
            rows = [None, {name: {"logprob": value} for name, value in state.items()}]
            last = {"token_id:7": -1.0, "token_id:3": -0.5}
            answer["choices"][0] |= {"prompt_logprobs": rows}
            answer["choices"][0]["logprobs"] = {"top_logprobs": [last]}
        return answer

    with OpenAiStub() as stub:
        stub.reply = reply
        engine = teacher(stub, tokens="ids")
        ((ids, logprobs),) = engine.prompt_distributions([np.array([5, 6, 7])], 2)
        assert (ids.dtype, logprobs.dtype) == (np.int32, np.float32)
        assert ids.tolist() == [[4, 9], [3, 7]]
        assert logprobs.tolist() == [[-0.25, -0.5], [-0.5, -1.0]]


def test_more_likeliest_tokens_than_the_server_allows_are_not_asked_for():
    with OpenAiStub() as stub:
        stub.reply = scoring
        engine = teacher(stub, tokens="ids", max_logprobs=20)
        before = len(stub.requests)
        with pytest.raises(ConfigError, match=r"asks for 21 .* and teacher.max_logprobs is 20"):
            engine.prompt_distributions([np.array([5, 6, 7])], 21)
        assert len(stub.requests) == before


def test_a_malformed_answer_is_asked_for_again():
    with OpenAiStub() as stub:
        engine = teacher(stub)
        before = len(stub.asked("/completions"))
        stub.answer_next(Answer({"model": "big", "choices": []}))
        (drawn,) = draw(engine, "the fox")
        # The malformed one, the good one, and three looks at whose answer that was.
        assert len(stub.asked("/completions")) - before == 5
    assert small_tokenizer().decode(drawn.ids_T[:-1]) == " answer"


def test_prompts_that_are_never_answered_usably_are_named_and_the_others_asked_once():
    with OpenAiStub() as stub:
        engine = teacher(stub)
        stub.reply = lambda body: text_answer(7 if "dog" in body["prompt"] else " answer")  # type: ignore[arg-type]
        with pytest.raises(MalformedAnswerError, match="text of type int") as caught:
            draw(engine, "the fox", "a dog", "the lazy fox", "the dog")
        assert caught.value.requests == (1, 3)
        asked = [request.body["prompt"] for request in stub.asked("/completions") if request.body]
    assert asked.count("the fox") == 1 and asked.count("a dog") == 2


def test_a_pair_whose_score_is_malformed_is_named_where_only_some_are_asked_again():
    """Of the likeliest tokens one state lacks the one that stands there: it is asked for alone."""

    def reply(body: dict[str, Any]) -> Any:
        if body["prompt_logprobs"] == 0 and body["prompt"][0] == 9:
            return {"choices": []}
        answer = score_answer(body)
        if body["prompt_logprobs"]:
            answer["choices"][0]["logprobs"]["top_logprobs"] = [{"token_id:1": -1.0}]
            answer["choices"][0]["prompt_logprobs"][1:] = [
                {"1": {"logprob": -1.0}} for _ in body["prompt"][1:]
            ]
        return answer

    with OpenAiStub() as stub:
        stub.reply = reply
        engine = teacher(stub, tokens="ids")
        pairs = [np.array(ids, np.int32) for ids in ([5, 1], [9, 8], [7, 1])]
        with pytest.raises(MalformedAnswerError) as caught:
            EngineScorer(engine).score(
                [pair[:1] for pair in pairs], [pair[1:] for pair in pairs], top_k=1
            )
    assert caught.value.requests == (1,)


def test_a_server_of_another_tokenizer_is_refused_at_the_start():
    with OpenAiStub() as stub:
        stub.reply = scoring
        stub.tokens = token_ids(PROBE)
        teacher(stub, tokens="ids").warm_up()
        stub.tokens = [*token_ids(PROBE)[:-1], 1]
        with pytest.raises(ConfigError, match=r"another tokenizer than the student.*tokens=text"):
            teacher(stub, tokens="ids")


def test_a_server_whose_tokenizer_cannot_be_asked_is_trusted_with_a_warning(
    caplog: pytest.LogCaptureFixture,
):
    with OpenAiStub() as stub:
        stub.reply = scoring
        teacher(stub, tokens="ids")
    assert "has no /tokenize: its tokenizer is not checked" in caplog.text


def test_log_probabilities_that_sampling_has_touched_are_refused_at_the_start():
    with OpenAiStub() as stub:
        stub.reply = lambda body: score_answer(body, drawn=0.0)
        with pytest.raises(ConfigError, match=r"0\.00 when it draws it and -2\.00 .* raw_logprobs"):
            teacher(stub, tokens="ids")
