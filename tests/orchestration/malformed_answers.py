"""Malformed answers of a teacher's server, each with the sentence that ends the request.

``…`` stands for words of other libraries and for numbers; ``{url}`` is ``teacher.base_url``.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from configs.errors import ConfigError, DependencyError, DpkdError, NonFiniteError
from tests.actors.openai_stub import (
    BROKEN_OFF,
    Answer,
    OpenAiStub,
    draw,
    error,
    ids_answer,
    score_answer,
    teacher,
    text_answer,
)

Reply = Callable[[dict[str, Any]], Any]
Ask = Callable[[OpenAiStub, Reply], Any]
"""Asks a server that is sound at the start, and from then on replies so."""


class Malformed(NamedTuple):
    what: str
    ask: Ask
    reply: Reply
    said: str
    kind: type[DpkdError] = DependencyError


def sound(body: dict[str, Any]) -> Any:
    """What vLLM's server answers."""
    return score_answer(body) if "prompt_logprobs" in body else ids_answer([7, 9, 0])


def text(stub: OpenAiStub, reply: Reply) -> Any:
    engine = teacher(stub)
    stub.reply = reply
    return draw(engine, "the fox")


def chat(stub: OpenAiStub, reply: Reply) -> Any:
    engine = teacher(stub, api="chat")
    stub.reply = reply
    return draw(engine, "the fox")


def ids(stub: OpenAiStub, reply: Reply) -> Any:
    stub.reply = sound
    engine = teacher(stub, tokens="ids")
    stub.reply = reply
    return draw(engine, "the fox")


def scores(stub: OpenAiStub, reply: Reply) -> Any:
    stub.reply = sound
    engine = teacher(stub, tokens="ids")
    stub.reply = reply
    return engine.prompt_logprobs([np.array([5, 6, 7, 8])])


def likeliest(stub: OpenAiStub, reply: Reply) -> Any:
    stub.reply = sound
    engine = teacher(stub, tokens="ids")
    stub.reply = reply
    return engine.prompt_distributions([np.array([5, 6, 7, 8])], 2)


def start(stub: OpenAiStub, reply: Reply) -> Any:
    stub.reply = reply
    return teacher(stub, tokens="ids")


def pinned(stub: OpenAiStub, reply: Reply) -> Any:
    stub.reply = reply
    return teacher(stub, fingerprint="5e1f-4.00")


def pinned_ids(stub: OpenAiStub, reply: Reply) -> Any:
    stub.reply = reply
    return teacher(stub, tokens="ids", fingerprint="5e1f-4.00")


def always(body: Any, status: int = 200, header: tuple[str, str] = ("Server", "stub")) -> Reply:
    """Answer everything so, with a header that keeps the test from waiting for the next try."""
    return lambda _: Answer(body, status, dict([("retry-after-ms", "1"), header]))


def choice(**changes: Any) -> Reply:
    """Answer soundly but for these keys of the completion."""

    def reply(body: dict[str, Any]) -> Any:
        answer = sound(body)
        answer["choices"][0] |= changes
        return answer

    return reply


def scored(change: Callable[[list[Any]], Any]) -> Reply:
    """Answer soundly but for what ``change`` does to the list of the prompt's states."""

    def reply(body: dict[str, Any]) -> Any:
        answer = sound(body)
        change(answer["choices"][0]["prompt_logprobs"])
        return answer

    return reply


NO_SERVER = "teacher server {url} does not answer as an OpenAI-compatible server does "
WHERE = "; check teacher.base_url, which usually ends in /v1"
NO_OBJECT = NO_SERVER + "(no JSON object, sent as application/json, from /completions)" + WHERE
NO_JSON = NO_SERVER + "(no whole JSON from /completions)" + WHERE
OTHER_MODEL = (
    "teacher server {url} serves a model of fingerprint …, and teacher.fingerprint is 5e1f-4.00; "
    "serve that model, or set teacher.fingerprint to the new one, or to null"
)
FORM = "log-probabilities in another form than vLLM's server gives"


def useless(what: str) -> str:
    return (
        f"teacher server {{url}} gave an answer that cannot be used ({what}); read its log, and "
        "see that teacher.base_url, teacher.api and teacher.tokens suit it"
    )


def gives_no(what: str) -> str:
    return (
        f"teacher server {{url}} gives no {what}, as vLLM's server does where token ids travel: "
        "set teacher.tokens=text"
    )


WHOLE = json.dumps(text_answer(" answer"))
NO_COMPLETION = useless("no completion in its list of choices")

ANSWERS = [
    Malformed("a portal's page", text, always("<html>Sign in</html>"), NO_OBJECT),
    Malformed("garbage", text, always("\x00\x01\x02"), NO_JSON),
    Malformed("truncated JSON", text, always(WHOLE[:40]), NO_JSON),
    Malformed("an empty body", text, always(""), NO_JSON),
    Malformed("a list", text, always([1, 2]), NO_OBJECT),
    Malformed("another content type", text, always(WHOLE, header=("Content-Type", "text/plain")),
              NO_OBJECT),
    Malformed("a lie about its compression", text,
              always(WHOLE, header=("Content-Encoding", "gzip")),
              "teacher server {url} could not be reached in 2 tries (…); see that it runs, that "
              "teacher.base_url is its address, or raise teacher.max_retries"),
    Malformed("a connection that breaks off, always", text, always("", BROKEN_OFF),
              "teacher server {url} could not be reached in 2 tries (…); see that it runs, that "
              "teacher.base_url is its address, or raise teacher.max_retries"),
    Malformed("HTTP 401", text, always(error("who?"), 401),
              "teacher server {url} wants an API key (HTTP 401) and none is set; set "
              "teacher.key_file, or the environment variable that teacher.key_env names",
              ConfigError),
    Malformed("HTTP 404, for the model", text, always(error("no model `big`"), 404),
              "teacher server {url} has no model 'big', or nothing at this address (HTTP 404: no "
              f"model `big`){WHERE.replace('check', 'check teacher.model, and')}", ConfigError),
    Malformed("HTTP 429, always", text, always(error("slow down"), 429),
              "teacher server {url} refuses so many requests (HTTP 429: slow down); set "
              "teacher.requests_per_minute, or lower teacher.concurrency or teacher.replicas"),
    Malformed("HTTP 500, always", text, always(error("out of memory"), 500),
              "teacher server {url} failed (HTTP 500: out of memory) after up to 1 further tries; "
              "read its log"),
    Malformed("an error under HTTP 200", text, always(error("overloaded")), NO_COMPLETION),
    Malformed("no choices", text, always({"choices": []}), NO_COMPLETION),
    Malformed("a choice that is text", text, always({"choices": ["answer"]}), NO_COMPLETION),
    Malformed("a number for text", text, choice(text=5), useless("text of type int")),
    Malformed("a chat answer to a completion", text,
              always({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}),
              useless("no text in it")),
    Malformed("a completion to a chat", chat,
              always({"choices": [{"text": "x", "finish_reason": "stop"}]}),
              useless("no message in it")),
    Malformed("no token ids", ids, choice(token_ids=None), gives_no("token_ids"), ConfigError),
    Malformed("no log-probabilities", ids, choice(logprobs=None), gives_no("logprobs"),
              ConfigError),
    Malformed("fewer log-probabilities than tokens", ids,
              choice(logprobs={"token_logprobs": [-1.0]}),
              useless("1 log-probabilities for 3 tokens")),
    Malformed("words for token ids", ids, choice(token_ids=["the", "fox", "."]),
              useless("no lists of token ids and log-probabilities")),
    Malformed("more tokens than were asked for", ids,
              choice(token_ids=[7] * 9, logprobs={"token_logprobs": [-1.0] * 9}),
              useless("9 tokens where 8 were asked for")),
    Malformed("a token of another vocabulary", ids, choice(token_ids=[7, 50256, 0]),
              useless("token id 50256 where the tokenizer has 300 tokens")),
    Malformed("a negative token", ids, choice(token_ids=[7, -1, 0]),
              useless("token id -1 where the tokenizer has 300 tokens")),
    Malformed("a probability for its logarithm", ids,
              choice(logprobs={"token_logprobs": [-1.0, 0.5, -1.0]}),
              useless("a log-probability of 0.50, above 0")),
    Malformed("an end for no known reason", ids, choice(finish_reason="abort"),
              useless("it ended with 'abort'")),
    Malformed("no scores", scores, choice(prompt_logprobs=None), gives_no("prompt_logprobs"),
              ConfigError),
    Malformed("fewer scores than tokens", scores, scored(lambda states: states.pop()),
              useless("2 states with log-probabilities for 3 tokens")),
    Malformed("more scores than tokens", scores, scored(lambda states: states.append({})),
              useless("4 states with log-probabilities for 3 tokens")),
    Malformed("scores by word", scores,
              scored(lambda states: states.append({"fox": {"logprob": -1.0}})), useless(FORM)),
    Malformed("scores without a token", scores, choice(prompt_logprobs=[None, -1.0, -1.0]),
              useless(FORM)),
    Malformed("no score of the drawn token", scores, choice(logprobs={"top_logprobs": []}),
              useless(FORM)),
    Malformed("fewer likeliest tokens than were asked for", likeliest, sound,
              "the teacher's server gave 1 log-probabilities of a token where 2 were asked; lower "
              "teacher.distribution_top_k"),
    Malformed("log-probabilities that are NaN from the start", start,
              lambda body: score_answer(body, logprob=float("nan")),
              "teacher server {url} gives nan and nan as a token's log-probability, not finite "
              "numbers; check the weights that it serves, or serve them in float32",
              NonFiniteError),
    Malformed("another model than the expected one, by its text", pinned,
              lambda body: text_answer(" answer"), OTHER_MODEL),
    Malformed("another model than the expected one, by its scores", pinned_ids, sound,
              OTHER_MODEL),
]  # fmt: skip

MODEL_LISTS = [
    ("no list", {"data": 5}, "/models gives no list of models"),
    ("a list of numbers", {"data": [5]}, "/models gives no list of models"),
    ("a context that is text", {"data": [{"id": "big", "max_model_len": "40"}]},
     "/models gives '40' as max_model_len"),
    ("a context of one token", {"data": [{"id": "big", "max_model_len": 1}]},
     "/models gives 1 as max_model_len"),
]  # fmt: skip
"""Malformed answers to a question for the served models."""
