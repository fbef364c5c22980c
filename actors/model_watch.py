"""Looks at the model that a server serves: at the start, and again while a run asks it."""

import logging
import time
from functools import partial
from typing import Any

import numpy as np

from actors.malformed import MalformedAnswerError
from actors.openai_answers import token_logprobs
from actors.openai_errors import malformed_answer
from actors.openai_format import IdsFormat, TextFormat
from actors.openai_server import OpenAiServer
from actors.served_model import PROBE, QUESTION, ServedModel
from configs.errors import ConfigError, DependencyError, NonFiniteError
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig

log = logging.getLogger(__name__)

CHECK_SECONDS = 600.0
"""Longest time between two looks at the served model, while it is asked anything."""
_ASKS = 3
_SMALLEST_CONTEXT = 8
"""As of ``teacher.max_model_len``."""
_GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=16)


def describe(server: OpenAiServer, config: OpenAiTeacherConfig) -> dict[str, Any]:
    """Return what a server's list of models says of the model: Nones where it is not in it."""
    listed = (server.ask_if_there("/models") or {}).get("data") or []
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise malformed_answer(config, "/models gives no list of models")
    entry = next((each for each in listed if each.get("id") == config.model), {})
    context = entry.get("max_model_len")
    if context is not None and not (isinstance(context, int) and context >= _SMALLEST_CONTEXT):
        raise malformed_answer(config, f"/models gives {context!r} as max_model_len")
    return {name: entry.get(name) for name in ("id", "root", "max_model_len")}


def score(server: OpenAiServer, form: IdsFormat, ids_L: np.ndarray) -> np.ndarray:
    """Return (L-1,) float32, log p(ids[i+1] | ids[:i+1]); NaN where the server gave none."""
    answer = server.ask(form.path, form.score_request(ids_L, 0))
    return token_logprobs(ids_L, form.state_logprobs(answer, ids_L))


class ModelWatch:
    """Holds what the first look found, and compares."""

    def __init__(
        self, config: OpenAiTeacherConfig, server: OpenAiServer, form: IdsFormat | TextFormat
    ) -> None:
        """Look for the first time.

        Raises DependencyError where ``config.fingerprint`` is another model's.
        """
        self._config, self._server, self._form = config, server, form
        self._first = self._look()
        self._looked = time.monotonic()
        self.fingerprint: str = self._pinned() or self._first.fingerprint
        """Names the served model; ``config.fingerprint`` where that is set."""

    def check_if_due(self) -> None:
        """Check when ``CHECK_SECONDS`` have passed since the last look."""
        if time.monotonic() - self._looked >= CHECK_SECONDS:
            self.check()

    def check(self) -> None:
        """Raise DependencyError where the model is not the one of the first look."""
        later = self._look()
        self._looked = time.monotonic()
        if not self._first.is_same(later):
            raise DependencyError(
                f"teacher server {self._config.base_url} now serves another model (fingerprint "
                f"{later.fingerprint}) than at the start ({self._first.fingerprint}); serve the "
                "first one again and resume the run"
            )

    def _pinned(self) -> str | None:
        pin = self._config.fingerprint
        if pin is not None and not self._first.has(pin):
            raise DependencyError(
                f"teacher server {self._config.base_url} serves a model of fingerprint "
                f"{self._first.fingerprint}, and teacher.fingerprint is {pin}; serve that model, "
                "or set teacher.fingerprint to the new one, or to null"
            )
        return pin

    def _look(self) -> ServedModel:
        described = describe(self._server, self._config)
        form = self._form
        try:
            if isinstance(form, IdsFormat):
                (logprobs,) = self._server.for_each(
                    partial(score, self._server, form), [form.probe_L]
                )
                return ServedModel(described=described, logprobs=logprobs)
            request = form.text_request(QUESTION, 0, _GREEDY)
            answers = self._server.for_each(self._answer, [request] * _ASKS)
        except MalformedAnswerError as error:
            raise MalformedAnswerError(str(error)) from None  # to no prompt of the run's
        return ServedModel(
            described=described | {"answers_as": answers[0][0]},
            answers=frozenset(text for _, text in answers),
        )

    def _answer(self, request: dict[str, Any]) -> tuple[Any, str]:
        """Return which model a server of text names, and what that says."""
        assert isinstance(self._form, TextFormat)
        answer = self._server.ask(self._form.path, request)
        return answer.get("model"), self._form.text(answer)


def check_token_ids(config: OpenAiTeacherConfig, server: OpenAiServer, tokenizer: Any) -> None:
    """Raise ConfigError where the server gives a text other ids than ``tokenizer`` does.

    vLLM's server is asked at /tokenize; one that has no such place is not checked.
    """
    root = config.base_url.rstrip("/").removesuffix("/v1")
    body = {"model": config.model, "prompt": PROBE, "add_special_tokens": False}
    answer = server.ask_if_there(f"{root}/tokenize", body)
    if answer is None:
        log.warning("%s has no /tokenize: its tokenizer is not checked", root)
    elif answer.get("tokens") != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        raise ConfigError(
            f"the model {config.model!r} of teacher server {config.base_url} has another "
            "tokenizer than the student; set teacher.tokens=text, or take two models of one family"
        )


def check_raw(config: OpenAiTeacherConfig, server: OpenAiServer, form: IdsFormat) -> None:
    """Raise ConfigError where the server's log-probabilities are not the raw model's.

    The same token is scored twice: as the only one allowed, and within a prompt. Raises
    NonFiniteError where that gives no number.
    """
    drawn = score(server, form, form.probe_L)[-1]
    shown = score(server, form, np.append(form.probe_L, form.probe_L[:1]))[-2]
    if not np.isfinite([drawn, shown]).all():
        raise NonFiniteError(
            f"teacher server {config.base_url} gives {drawn:.2f} and {shown:.2f} as a token's "
            "log-probability, not finite numbers; check the weights that it serves, or serve them "
            "in float32"
        )
    if abs(drawn - shown) >= 0.5:
        raise ConfigError(
            f"teacher server {config.base_url} gives a token the log-probability {drawn:.2f} when "
            f"it draws it and {shown:.2f} when it is shown it; start vLLM's server with "
            "--logprobs-mode raw_logprobs, or set teacher.tokens=text"
        )
