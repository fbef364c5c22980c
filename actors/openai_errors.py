"""What went wrong at a teacher's server, in one sentence: which server, what, what to do."""

from typing import TYPE_CHECKING

from actors.malformed import MalformedAnswerError
from configs.errors import ConfigError, DataError, DependencyError, DpkdError
from configs.teacher import OpenAiTeacherConfig

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAIError

_TOO_LONG = ("maximum model length", "context length", "context window", "max_model_len")
_TOO_MANY = ("greater than max allowed", "max_logprobs", "top_logprobs")


def server_error(error: "OpenAIError", config: OpenAiTeacherConfig, key: str | None) -> DpkdError:
    """Return the error to raise for one of the client's; it never holds the key."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    server, tries = f"teacher server {config.base_url}", config.max_retries + 1
    if isinstance(error, APIStatusError):
        return _status_error(error, config, key)
    if isinstance(error, APITimeoutError):
        return DependencyError(
            f"{server} did not answer within {config.timeout_seconds:g} s, {tries} time(s) over; "
            "see that it runs, or raise teacher.timeout_seconds or teacher.max_retries"
        )
    if isinstance(error, APIConnectionError):
        cause = _shown(str(error.__cause__ or error), key)
        return DependencyError(
            f"{server} could not be reached in {tries} tries ({cause}); see that it runs, that "
            "teacher.base_url is its address, or raise teacher.max_retries"
        )
    return no_openai_answer(config, _shown(str(error), key))


def no_openai_answer(config: OpenAiTeacherConfig, what: str) -> MalformedAnswerError:
    """Return the error for an answer that is none of the OpenAI interface."""
    return MalformedAnswerError(
        f"teacher server {config.base_url} does not answer as an OpenAI-compatible server does "
        f"({what}); check teacher.base_url, which usually ends in /v1"
    )


def malformed_answer(config: OpenAiTeacherConfig, what: str) -> MalformedAnswerError:
    """Return the error for a completion that holds something else than was asked for."""
    return MalformedAnswerError(
        f"teacher server {config.base_url} gave an answer that cannot be used ({what}); read its "
        "log, and see that teacher.base_url, teacher.api and teacher.tokens suit it"
    )


def _status_error(
    error: "APIStatusError", config: OpenAiTeacherConfig, key: str | None
) -> DpkdError:
    server, code = f"teacher server {config.base_url}", error.status_code
    if code in (401, 403):  # the server's own words may hold the key
        return _refused_key(server, code, config, key)
    said = f"HTTP {code}: {_shown(_message(error), key)}"
    if code == 404:
        return ConfigError(
            f"{server} has no model {config.model!r}, or nothing at this address ({said}); check "
            "teacher.model, and teacher.base_url, which usually ends in /v1"
        )
    if code == 429:
        return DependencyError(
            f"{server} refuses so many requests ({said}); set teacher.requests_per_minute, or "
            "lower teacher.concurrency or teacher.replicas"
        )
    if code in (400, 413, 422):
        return _bad_request(server, said)
    return DependencyError(
        f"{server} failed ({said}) after up to {config.max_retries} further tries; read its log"
    )


def _refused_key(
    server: str, code: int, config: OpenAiTeacherConfig, key: str | None
) -> ConfigError:
    if key is None:
        return ConfigError(
            f"{server} wants an API key (HTTP {code}) and none is set; set teacher.key_file, or "
            f"the environment variable {config.key_env or 'that teacher.key_env names'}"
        )
    source = config.key_file or f"environment variable {config.key_env}"
    return ConfigError(
        f"{server} refuses the API key of {source} (HTTP {code}); put a key there that may use "
        f"the model {config.model!r}"
    )


def _bad_request(server: str, said: str) -> DpkdError:
    if "logprobs" in said and any(phrase in said for phrase in _TOO_MANY):
        return ConfigError(
            f"{server} gives fewer log-probabilities a token than asked ({said}); lower "
            "teacher.distribution_top_k, or start the server with a larger --max-logprobs"
        )
    if any(phrase in said for phrase in _TOO_LONG):
        return DataError(
            f"{server}: a prompt is too long for the model's context ({said}); lower "
            "data.max_prompt_tokens or sampling.max_new_tokens of student and teacher"
        )
    return ConfigError(
        f"{server} refuses a request ({said}); see that teacher.api, teacher.tokens and "
        "teacher.sampling suit it"
    )


def _message(error: "APIStatusError") -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return str(message or error.message)


def _shown(text: str, key: str | None) -> str:
    """Return a server's words on one line, cut, and without the key should it repeat it."""
    text = " ".join(text.split())
    return (text.replace(key, "***") if key else text)[:300]
