"""A teacher behind an OpenAI-compatible server: the engine that ``teacher.type: openai`` asks.

It takes the place of ``VllmEngine``. The server's model may change under a run, so a
``ModelWatch`` looks at it again after every interruption, and now and then: a run never mixes
two teachers.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from threading import Lock
from typing import Any

import numpy as np

from actors.model_watch import ModelWatch, check_raw, check_token_ids, describe, score
from actors.openai_answers import StateLogprobs
from actors.openai_format import IdsFormat, TextFormat
from actors.openai_server import Item, OpenAiServer, Result
from configs.errors import ConfigError, DataError, DependencyError
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig
from configs.wire import Response

log = logging.getLogger(__name__)


class OpenAiEngine:
    """Draws responses at a server, and scores them where token ids travel."""

    def __init__(self, config: OpenAiTeacherConfig, *, tokenizer: Any, seed: int) -> None:
        """Reach the server and look at its model.

        ``tokenizer`` is the student's. ``seed`` has no use: every request brings its own.
        Raises ConfigError where the settings do not suit the server (key, model name, tokenizer,
        no token ids), and DependencyError where it cannot be reached or serves another model
        than ``config.fingerprint``.
        """
        del seed
        # Tokenizers are not safe between threads, and this one is the whole run's.
        self._tokenizer = tokenizer = deepcopy(tokenizer)
        self._reading = Lock()
        self._config = config
        self._server = OpenAiServer(config)
        declared = describe(self._server, config)["max_model_len"]
        with_ids = config.tokens == "ids"
        self.context: int = (declared if with_ids else None) or sys.maxsize
        """Longest prompt plus response in tokens; ``sys.maxsize`` where the server says none, and
        with text, where the server counts tokens of its own."""
        self.vocab_size: int | None = None
        """None: no server says it."""
        self._format: IdsFormat | TextFormat
        if with_ids:
            check_token_ids(config, self._server, tokenizer)
            self._format = IdsFormat(config, tokenizer, self.context)
            check_raw(config, self._server, self._format)
        else:
            self._format = TextFormat(config, tokenizer)
        self._watch = ModelWatch(config, self._server, self._format)
        self.fingerprint: str = self._watch.fingerprint
        """Names the served model; ``config.fingerprint`` where that is set."""
        log.info(
            "teacher %s at %s: fingerprint %s", config.model, config.base_url, self.fingerprint
        )

    def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Response]:
        """Draw one response for each (P,) int32 prompt.

        With ids, ``behaviour_logprobs_T`` holds the server's raw log-probabilities and a
        response ends as ``VllmEngine.generate``'s does; with text it is None. Raises DataError
        for a prompt that leaves no room in the context, and MalformedAnswerError, which says to
        which prompts, when the server's answers cannot be used.
        """
        for index, ids in enumerate(prompts):
            if not 1 <= len(ids) < self.context:
                raise DataError(
                    f"prompt {index} of the batch has {len(ids)} tokens; it needs at least one, "
                    f"and room for one more in the teacher's context of {self.context}"
                )
        requests = [
            self._format.request(ids, seed, sampling)
            for ids, seed in zip(prompts, seeds, strict=True)
        ]

        def respond(body: dict[str, Any]) -> Response:
            answer = self._server.ask(self._format.path, body)
            with self._reading:
                return self._format.response(answer, sampling)

        return self._for_each(respond, requests)

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (L-1,) float32, log p(ids[i+1] | ids[:i+1]), for each (L,) int32 sequence, L >= 2.

        NaN where the server gave none. Raises ConfigError where text travels.
        """
        form = self._ids_format()
        return self._for_each(lambda ids: score(self._server, form, ids), sequences)

    def prompt_distributions(
        self, sequences: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the K likeliest ids, (L-1, K) int32, and their log-probabilities, float32.

        Row i is p(. | ids[:i+1]), likeliest first. K is at most the tokenizer's size. Raises
        ConfigError where text travels, or for more than the server gives.
        """
        k = min(k, len(self._tokenizer))
        if k > self._config.max_logprobs:
            raise ConfigError(
                f"teacher.distribution_top_k asks for {k} log-probabilities a token and "
                f"teacher.max_logprobs is {self._config.max_logprobs}; lower the one, or raise "
                "the other and start the server with that --max-logprobs"
            )
        form = self._ids_format()

        def likeliest(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            answer = self._server.ask(form.path, form.score_request(ids, k))
            return _likeliest(form.state_logprobs(answer, ids), k)

        return self._for_each(likeliest, sequences)

    def warm_up(self) -> None:
        """Generate once: a server that cannot is found before the run begins."""
        first = self._tokenizer("x", add_special_tokens=False)["input_ids"][:1]
        sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1)
        self.generate([np.array(first, np.int32)], sampling=sampling, seeds=[0])

    def close(self) -> None:
        """Close the connections; the server lives on."""
        self._server.close()

    def _ids_format(self) -> IdsFormat:
        if isinstance(self._format, IdsFormat):
            return self._format
        raise ConfigError(
            "a teacher with teacher.tokens=text gives no log-probabilities; set teacher.tokens=ids "
            "(vLLM's server), or take an objective that needs none"
        )

    def _for_each(self, task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Run ``task`` for each item, and make sure that one model gave every answer."""
        if not items:
            return []
        self._watch.check_if_due()
        results = self._server.for_each(task, items)
        if self._server.was_interrupted():
            self._watch.check()
        return results


def _likeliest(states: list[StateLogprobs], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (L-1, K) ids and log-probabilities; DependencyError where a state holds fewer.

    A NaN comes first, so that it is not cut off unseen.
    """
    ranked = [sorted(state.items(), key=_likelier)[:k] for state in states]
    fewest = min(len(pairs) for pairs in ranked)
    if fewest < k:
        raise DependencyError(
            f"the teacher's server gave {fewest} log-probabilities of a token where {k} were "
            "asked; lower teacher.distribution_top_k"
        )
    ids = [[token for token, _ in pairs] for pairs in ranked]
    logprobs = [[value for _, value in pairs] for pairs in ranked]
    return np.array(ids, np.int32), np.array(logprobs, np.float32)


def _likelier(pair: tuple[int, float]) -> tuple[float, int]:
    token, logprob = pair
    return (-np.inf if np.isnan(logprob) else -logprob, token)
