"""A small HTTP server in the place of a teacher's: it answers what a test tells it to.

Untold, it completes every prompt with ``reply``, and scores every token id with -2.0.
"""

import json
import sys
import threading
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import numpy as np

from actors.openai_engine import OpenAiEngine
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig
from configs.wire import Response

Headers = dict[str, str]


BROKEN_OFF = 0
"""The status of an answer that never comes: the connection is closed."""


class Answer(NamedTuple):
    body: Any
    status: int = 200
    headers: Headers = {}  # noqa: RUF012 - nobody changes it


class Request(NamedTuple):
    path: str
    headers: Headers
    body: dict[str, Any] | None


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)


class OpenAiStub:
    """Listens on a free port of 127.0.0.1 from construction to ``close``."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.model: dict[str, Any] = {"id": "big", "root": "/models/big", "max_model_len": 40}
        self.reply: Callable[[dict[str, Any]], Any] = lambda body: text_answer(" answer")
        """What a completion is answered with: a body, or an ``Answer``."""
        self.tokens: list[int] | None = None
        """What /tokenize answers; None: there is no such place."""
        self._next: list[Answer] = []
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "OpenAiStub":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer_next(self, *answers: Answer) -> None:
        """Answer the coming completions so, one each."""
        self._next += answers

    def asked(self, ending: str) -> list[Request]:
        return [request for request in self.requests if request.path.endswith(ending)]

    def handle(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            told = self._next.pop(0) if self._next and request.path.endswith("ompletions") else None
        if told is not None:
            return told
        if request.path == "/v1/models":
            return Answer({"object": "list", "data": [self.model]})
        if request.path == "/tokenize" and self.tokens is not None:
            return Answer({"tokens": self.tokens})
        if request.path.endswith("ompletions"):
            answer = self.reply(request.body or {})
            return answer if isinstance(answer, Answer) else Answer(answer)
        return Answer({"detail": "Not Found"}, 404)


def _handler(stub: OpenAiStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any] | None) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = stub.handle(Request(self.path, headers, body))
            if answer.status == BROKEN_OFF:
                self.close_connection = True
                return
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            kind = "text/html" if text.startswith("<") else "application/json"
            data = text.encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": kind, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def text_answer(text: str | None, finish_reason: str = "stop", *, model: str = "big") -> Any:
    """What /completions and /chat/completions answer, in one."""
    choice = {"text": text, "message": {"content": text}, "finish_reason": finish_reason}
    return {"model": model, "choices": [choice]}


def ids_answer(ids: list[int], finish_reason: str = "stop") -> Any:
    """What vLLM's server answers to ``return_token_ids``."""
    logprobs = {"token_logprobs": [-1.0 - index for index in range(len(ids))]}
    choice = {"token_ids": ids, "logprobs": logprobs, "finish_reason": finish_reason}
    return {"model": "big", "choices": [choice]}


def score_answer(body: dict[str, Any], *, logprob: float = -2.0, drawn: float | None = None) -> Any:
    """What vLLM's server answers to ``prompt_logprobs``, every token as likely as the others."""
    rows: list[Any] = [None]
    rows += [{str(token): {"logprob": logprob}} for token in body["prompt"][1:]]
    last = {f"token_id:{body['allowed_token_ids'][0]}": logprob if drawn is None else drawn}
    choice = {"prompt_logprobs": rows, "logprobs": {"top_logprobs": [last]}}
    return {"model": "big", "choices": [choice | {"finish_reason": "length"}]}


def error(message: str, **rest: Any) -> Any:
    return {"error": {"message": message, **rest}}


@cache
def small_tokenizer() -> Any:
    """A byte-level BPE of 300 tokens; 0 is beginning, end and padding in one."""
    from actors.tokenizer import train_tokenizer

    text = "the quick brown fox jumps over the lazy dog; an answer to a question"
    return train_tokenizer([text] * 5, 300, Path(mkdtemp()))


def teacher(stub_or_url: OpenAiStub | str, **settings: Any) -> OpenAiEngine:
    """An engine that asks the stub; at most one further try of a request, unless told."""
    url = stub_or_url if isinstance(stub_or_url, str) else stub_or_url.base_url
    settings = {"type": "openai", "model": "big", "max_retries": 1, "key_env": None} | settings
    config = OpenAiTeacherConfig.model_validate({"base_url": url, **settings})
    return OpenAiEngine(config, tokenizer=small_tokenizer(), seed=0)


def prompts(*texts: str) -> list[np.ndarray]:
    return [np.array(small_tokenizer()(text)["input_ids"], np.int32) for text in texts]


def greedy(max_new_tokens: int = 8) -> Sampling:
    return Sampling(temperature=0.0, top_p=1.0, max_new_tokens=max_new_tokens)


def draw(engine: OpenAiEngine, *texts: str, sampling: Sampling | None = None) -> list[Response]:
    chosen = prompts(*texts)
    return engine.generate(chosen, sampling=sampling or greedy(), seeds=range(len(chosen)))
