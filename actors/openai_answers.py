"""What an OpenAI-compatible server's answer holds, checked: a server may answer anything.

Whatever is missing, miscounted or of another type is a MalformedAnswerError that says so. A
log-probability that is no number stays one: the queue drops its tuple, and counts it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from actors.openai_errors import malformed_answer
from configs.errors import ConfigError
from configs.teacher import OpenAiTeacherConfig

StateLogprobs = dict[int, float]
"""Token id to log-probability: what a server gives of one state."""

_ROUNDING = 1e-3
"""A log-probability may be above 0 by so many nats."""


class Answer:
    """The one completion that was asked for."""

    def __init__(self, body: Mapping[str, Any], config: OpenAiTeacherConfig) -> None:
        """Raise MalformedAnswerError where the body has no completion."""
        self._config = config
        choices = body.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            raise malformed_answer(config, "no completion in its list of choices")
        self._choice: dict[str, Any] = choices[0]

    @property
    def finish_reason(self) -> Any:
        """Why it ended, as the server says."""
        return self._choice.get("finish_reason")

    def text(self, *, chat: bool) -> str:
        """Return the completion's text; a server may give none for an empty one.

        Half a surrogate pair, as of an emoji that is cut, becomes U+FFFD.
        """
        holder, name = (self._choice.get("message"), "content") if chat else (self._choice, "text")
        if not isinstance(holder, dict) or not (chat or "text" in holder):
            raise malformed_answer(self._config, f"no {'message' if chat else 'text'} in it")
        text = holder.get(name) or ""
        if not isinstance(text, str):
            raise malformed_answer(self._config, f"{name} of type {type(text).__name__}")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def drawn(self, *, longest: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the (T,) int32 ids that were drawn, and their (T,) float32 log-probabilities.

        ``longest`` is the T that was asked for at most; ids are below ``vocabulary``.
        """
        ids, logprobs = self._given("token_ids"), self._given("logprobs")
        if self.finish_reason not in ("stop", "length"):
            raise malformed_answer(self._config, f"it ended with {self.finish_reason!r}")
        try:
            ids_T = np.asarray(ids)
            logprobs_T = np.asarray(logprobs["token_logprobs"], np.float32)
        except (LookupError, TypeError, ValueError):
            ids_T, logprobs_T = np.empty(0), np.empty(0)
        if ids_T.dtype.kind != "i" or ids_T.ndim != 1 or logprobs_T.ndim != 1:
            raise malformed_answer(self._config, "no lists of token ids and log-probabilities")
        self._check_count(len(logprobs_T), "log-probabilities", len(ids_T))
        if len(ids_T) > longest:
            what = f"{len(ids_T)} tokens where {longest} were asked for"
            raise malformed_answer(self._config, what)
        if ids_T.min() < 0 or ids_T.max() >= vocabulary:
            worst = ids_T.min() if ids_T.min() < 0 else ids_T.max()
            what = f"token id {worst} where the tokenizer has {vocabulary} tokens"
            raise malformed_answer(self._config, what)
        self._check_below_zero(logprobs_T)
        return ids_T.astype(np.int32), logprobs_T

    def states(self, count: int) -> list[StateLogprobs]:
        """Return ``count`` maps: of the prompt's states and, last, of the one that was drawn."""
        prompt, drawn = self._given("prompt_logprobs"), self._given("logprobs")
        try:
            # Nothing predicts the first id.
            states = [
                {int(token): _value(entry["logprob"]) for token, entry in (at or {}).items()}
                for at in prompt[1:]
            ]
            last = drawn["top_logprobs"][0]
            states.append({int(t.removeprefix("token_id:")): _value(p) for t, p in last.items()})
        except (AttributeError, LookupError, TypeError, ValueError):
            raise malformed_answer(
                self._config, "log-probabilities in another form than vLLM's server gives"
            ) from None
        self._check_count(len(states), "states with log-probabilities", count)
        self._check_below_zero(value for state in states for value in state.values())
        return states

    def _given(self, name: str) -> Any:
        found = self._choice.get(name)
        if not found:
            raise ConfigError(
                f"teacher server {self._config.base_url} gives no {name}, as vLLM's server does "
                "where token ids travel: set teacher.tokens=text"
            )
        return found

    def _check_count(self, found: int, what: str, tokens: int) -> None:
        if found != tokens:
            raise malformed_answer(self._config, f"{found} {what} for {tokens} tokens")

    def _check_below_zero(self, logprobs: Iterable[float]) -> None:
        worst = next((value for value in logprobs if value > _ROUNDING), None)
        if worst is not None:
            raise malformed_answer(self._config, f"a log-probability of {worst:.2f}, above 0")


def token_logprobs(ids_L: np.ndarray, states: list[StateLogprobs]) -> np.ndarray:
    """Return (L-1,) float32 by token id, NaN where there is none.

    A state may hold more tokens than the one that stands there.
    """
    pairs = zip(ids_L[1:].tolist(), states, strict=True)
    return np.array([state.get(token, np.nan) for token, state in pairs], np.float32)


def _value(logprob: Any) -> float:
    return np.nan if logprob is None else float(logprob)
