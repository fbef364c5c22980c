"""The way to a teacher's server: the key, further tries, limits, and errors in one sentence."""

import logging
import re
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from actors.rate_limit import RateLimit
from configs.errors import ConfigError, DataError, DependencyError, DpkdError
from tests.actors.openai_stub import (
    BROKEN_OFF,
    Answer,
    OpenAiStub,
    draw,
    error,
    teacher,
    text_answer,
)

KEY = "sk-ThisIsTheKey-0123456789"
TOO_MANY = "Requested prompt logprobs of 30, which is greater than max allowed: 20"
TOO_LONG = "The decoder prompt (length 64) is longer than the maximum model length of 64."


def failure(stub: OpenAiStub, *answers: Answer, **settings: Any) -> DpkdError:
    """The error of the request that is answered so, after a start that went well."""
    engine = teacher(stub, **settings)
    stub.answer_next(*answers)
    with pytest.raises(DpkdError) as caught:
        draw(engine, "the fox")
    return caught.value


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_the_key_of_a_file_is_sent_with_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "key").write_text(f"  {KEY}\n")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    with OpenAiStub() as stub:
        draw(teacher(stub, key_file=tmp_path / "key", key_env="OPENAI_API_KEY"), "the fox")
        sent = {request.headers.get("authorization") for request in stub.requests}
    assert sent == {f"Bearer {KEY}"}


def test_the_key_of_an_environment_variable_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with OpenAiStub() as stub:
        draw(teacher(stub, key_env="TEACHER_KEY"), "the fox")
        assert stub.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent_whatever_the_client_s_own_variables_say(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}")
    with OpenAiStub() as stub:
        draw(teacher(stub, key_env="UNSET_TEACHER_KEY"), "the fox")
        assert not any(KEY in str(request.headers) for request in stub.requests)


def test_a_key_file_that_is_missing_or_holds_no_key_is_an_error(tmp_path: Path):
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match=rf"key_file {missing} cannot be read \(No such file"):
        teacher("http://127.0.0.1:9/v1", key_file=missing)
    for content in ("", f"{KEY} second", f"{KEY}é", f"{KEY}\nsecond"):
        (tmp_path / "key").write_text(content)
        with pytest.raises(ConfigError, match="holds no API key") as caught:
            teacher("http://127.0.0.1:9/v1", key_file=tmp_path / "key")
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_in_no_log_and_no_traceback_even_where_the_server_repeats_it(
    status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "key").write_text(KEY)
    answer = Answer(error(f"the key {KEY} is bad"), status)
    with OpenAiStub() as stub, caplog.at_level(logging.DEBUG):
        caught = failure(stub, answer, max_retries=0, key_file=tmp_path / "key")
    assert KEY not in "".join(traceback.format_exception(caught))
    assert "POST" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (400, TOO_MANY, ConfigError, r"distribution_top_k.*larger --max-logprobs"),
        (400, TOO_LONG, DataError, r"too long for the model's context.*max_prompt_tokens"),
        (400, "odd\n  field", ConfigError, r"refuses a request \(HTTP 400: odd field\)"),
        (418, "teapot", DependencyError, r"failed \(HTTP 418: teapot\)"),
    ],
)
def test_a_refusal_is_one_sentence_that_names_the_server(
    status: int, message: str, kind: type[DpkdError], words: str
):
    with OpenAiStub() as stub:
        caught = failure(stub, Answer(error(message), status), max_retries=0)
    assert type(caught) is kind
    assert stub.base_url in str(caught) and "\n" not in str(caught)
    assert re.search(words, str(caught))


def test_a_refused_key_names_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    refusal = Answer(error("no"), 403)
    with OpenAiStub() as stub:
        of_file = failure(stub, refusal, key_file=tmp_path / "key")
        of_variable = failure(stub, refusal, key_env="TEACHER_KEY")
    assert f"refuses the API key of {tmp_path / 'key'} (HTTP 403)" in str(of_file)
    assert "refuses the API key of environment variable TEACHER_KEY" in str(of_variable)


@pytest.mark.parametrize("status", [408, 429, 500, 503, BROKEN_OFF])
def test_a_passing_failure_is_tried_again(status: int):
    with OpenAiStub() as stub:
        engine = teacher(stub)
        before = len(stub.asked("/completions"))
        stub.answer_next(Answer(error("not now"), status))
        (response,) = draw(engine, "the fox")
        sent = [request.body for request in stub.asked("/completions")[before : before + 2]]
    assert response.finish_reason == "stop"
    assert sent[0] == sent[1]


def test_a_lasting_refusal_is_not_tried_again():
    with OpenAiStub() as stub:
        engine = teacher(stub, max_retries=5)
        before = len(stub.requests)
        stub.answer_next(*[Answer(error("never"), 400)] * 6)
        with pytest.raises(ConfigError):
            draw(engine, "the fox")
        assert len(stub.requests) == before + 1


def test_retry_after_is_heeded():
    with OpenAiStub() as stub:
        engine = teacher(stub)
        stub.answer_next(Answer(error("slow down"), 429, {"Retry-After": "1"}))
        start = time.monotonic()
        draw(engine, "the fox")
        assert time.monotonic() - start >= 0.9  # unasked, it would wait half a second


def test_a_server_that_is_not_there_is_an_error_after_the_tries():
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(DependencyError, match=rf"{url} could not be reached in 2 tries \(.*refuse"):
        teacher(url)


def test_a_server_that_does_not_answer_is_an_error_after_the_tries():
    release = threading.Event()

    def wait(body: dict[str, Any]) -> Any:
        release.wait(20)
        return text_answer("late")

    with OpenAiStub() as stub:
        stub.reply = wait
        with pytest.raises(DependencyError, match=r"did not answer within 0.2 s, 2 time"):
            teacher(stub, timeout_seconds=0.2)
        release.set()


@pytest.mark.parametrize(
    ("status", "words"), [(503, "HTTP 503: down"), (BROKEN_OFF, "could not be reached in 1 tries")]
)
def test_an_outage_in_mid_run_ends_in_an_error_and_asks_no_more(status: int, words: str):
    with OpenAiStub() as stub:
        engine = teacher(stub, concurrency=2, max_retries=0)
        before = len(stub.requests)
        stub.answer_next(*[Answer(error("down"), status)] * 200)
        with pytest.raises(DependencyError, match=words):
            draw(engine, *["the fox"] * 200)
        assert len(stub.requests) - before < 100


def test_requests_are_under_way_together_up_to_the_bound_and_answers_keep_their_order():
    inside, peak, lock, both = 0, 0, threading.Lock(), threading.Barrier(2)

    def meet(body: dict[str, Any]) -> Any:
        nonlocal inside, peak
        with lock:
            inside += 1
            peak = max(peak, inside)
        both.wait(20)  # goes on only when two requests are under way
        with lock:
            inside -= 1
        return text_answer(body["prompt"])

    with OpenAiStub() as stub:
        engine = teacher(stub, concurrency=2)
        stub.reply = meet
        texts = ["the fox", "a dog", "the dog", "a fox"]
        responses = draw(engine, *texts)
        again = [engine._tokenizer.decode(response.ids_T[:-1]) for response in responses]
    assert peak == 2
    assert again == texts


def test_every_request_takes_its_turn_at_the_rate_limit_and_further_tries_too(
    monkeypatch: pytest.MonkeyPatch,
):
    turns: list[float | None] = []
    monkeypatch.setattr(RateLimit, "take", lambda self: turns.append(self._interval))
    with OpenAiStub() as stub:
        engine = teacher(stub, requests_per_minute=120)
        stub.answer_next(Answer(error("not now"), 503))
        draw(engine, "the fox")
        assert turns == [0.5] * len(stub.requests)
