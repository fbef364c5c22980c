"""Requests to an OpenAI-compatible server: the key, the limits, further tries, and the errors.

The client is OpenAI's own, for its retries: connection errors, timeouts and HTTP 408, 409, 429
and 5xx are tried again, after the server's Retry-After (up to two minutes) or 0.5 s, doubling
up to 8 s, less up to a quarter at random. Answers are plain dictionaries.
"""

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar

from actors.malformed import MalformedAnswerError
from actors.openai_errors import no_openai_answer, server_error
from actors.rate_limit import RateLimit
from configs.errors import ConfigError
from configs.teacher import OpenAiTeacherConfig

if TYPE_CHECKING:
    from httpx2 import Request

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_SECONDS = 10.0
"""Longest wait for a connection; an answer may take ``timeout_seconds``."""

MALFORMED_RETRIES = 3
"""Further tries, at most, of a request whose answer cannot be used; after 0.5 s, doubling."""


class OpenAiServer:
    """Asks one server. Every error is one of ``configs.errors``, and none holds the key."""

    def __init__(self, config: OpenAiTeacherConfig) -> None:
        """Read the key and ask nothing yet. Raises ConfigError for a key that is none."""
        from openai import DefaultHttpx2Client, OpenAI, Timeout, omit

        self._config = config
        self._key = api_key(config)
        self._tried_again = threading.Event()
        hook = _before_request(RateLimit(config.requests_per_minute), self._tried_again)
        # Said with every request: the client would else take headers from its own variables.
        self._headers = {"Authorization": f"Bearer {self._key}" if self._key else omit}
        timeout = Timeout(
            config.timeout_seconds, connect=min(CONNECT_SECONDS, config.timeout_seconds)
        )
        self._client = OpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",
            max_retries=config.max_retries,
            timeout=timeout,
            http_client=DefaultHttpx2Client(timeout=timeout, event_hooks={"request": [hook]}),
        )
        # Whoever asks may fail to start, and then closes nothing.
        weakref.finalize(self, self._client.close)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST ``body``, or GET where it is None, and return the answer.

        ``path`` is relative to ``base_url``, or a whole address.
        """
        from openai import OpenAIError

        try:
            return self._send(path, body)
        except OpenAIError as error:
            raise server_error(error, self._config, self._key) from None

    def ask_if_there(
        self, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Ask as ``ask`` does; None where the server has nothing at ``path``."""
        from openai import OpenAIError

        try:
            return self._send(path, body)
        except OpenAIError as error:
            if getattr(error, "status_code", None) in (404, 405):
                return None
            raise server_error(error, self._config, self._key) from None

    def for_each(self, task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Run ``task``, which asks, for ``concurrency`` items at a time; keep their order.

        An answer may be large: a task returns what is wanted of it. A malformed answer is asked
        for again, ``MALFORMED_RETRIES`` times at most; once all others are there,
        MalformedAnswerError names the items that have none. Any other error ends it at once:
        what is not under way yet is never asked.
        """
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            futures = [pool.submit(self._try, task, item) for item in items]
            done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
            for future in waiting:
                future.cancel()
            for future in done:
                future.result()
        results: list[Any] = [future.result() for future in futures]
        bad = [n for n, result in enumerate(results) if isinstance(result, MalformedAnswerError)]
        if bad:
            raise MalformedAnswerError(str(results[bad[0]]), tuple(bad))
        return results

    def was_interrupted(self) -> bool:
        """Return whether any request was tried again since this was last asked."""
        interrupted = self._tried_again.is_set()
        self._tried_again.clear()
        return interrupted

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _try(self, task: Callable[[Item], Result], item: Item) -> "Result | MalformedAnswerError":
        """Run ``task`` until its answer can be used; return the last error where none can."""
        retries = min(MALFORMED_RETRIES, self._config.max_retries)
        for retry in itertools.count():
            try:
                return task(item)
            except MalformedAnswerError as error:
                # Another server may have taken the first one's place.
                self._tried_again.set()
                if retry == retries:
                    return error
                time.sleep(0.5 * 2**retry)
        raise AssertionError("unreachable")

    def _send(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            if body is None:
                answer = self._client.get(path, cast_to=object, options={"headers": self._headers})
            else:
                answer = self._client.post(
                    path, cast_to=object, body=dict(body), options={"headers": self._headers}
                )
        except JSONDecodeError:
            raise no_openai_answer(self._config, f"no whole JSON from {path}") from None
        if not isinstance(answer, dict):
            raise no_openai_answer(
                self._config, f"no JSON object, sent as application/json, from {path}"
            )
        return answer


def _before_request(rate: RateLimit, tried_again: threading.Event) -> "Callable[[Request], None]":
    """Return what runs before every request, the further tries among them."""

    def hook(request: "Request") -> None:
        rate.take()
        if request.headers.get("x-stainless-retry-count", "0") != "0":
            tried_again.set()

    return hook


def api_key(config: OpenAiTeacherConfig) -> str | None:
    """Return the key of ``key_file``, else of the variable ``key_env``; None: there is none.

    Raises ConfigError, without the contents, where the file cannot be read or holds no key.
    """
    if config.key_file is not None:
        path = config.key_file.expanduser()
        source = f"teacher.key_file {path}"
        try:
            key = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(
                f"{source} cannot be read ({reason}); put the API key alone into it"
            ) from None
    else:
        source = f"environment variable {config.key_env} (teacher.key_env)"
        key = os.environ.get(config.key_env or "", "").strip()
        if not key:
            return None
    # Anything else would be refused by the HTTP library, in words that hold the key.
    if not key or not all("!" <= character <= "~" for character in key):
        raise ConfigError(f"{source} holds no API key: one word of printable ASCII is expected")
    return key
