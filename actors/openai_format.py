"""Token ids to the JSON of an OpenAI-compatible server, and back.

``IdsFormat`` speaks vLLM's extensions, by which ids and log-probabilities travel exactly.
``TextFormat`` keeps to what every server knows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.openai_answers import Answer, StateLogprobs
from actors.served_model import PROBE
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig
from configs.wire import Response

_PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""vLLM's server would else take these from the model's generation_config.json."""


class IdsFormat:
    """Ids in, ids and raw log-probabilities out, at /completions of vLLM's server."""

    path = "/completions"

    def __init__(self, config: OpenAiTeacherConfig, tokenizer: Any, context: int) -> None:
        """``tokenizer`` is teacher's and student's; ``context`` the teacher's, in tokens."""
        self._config, self._context = config, context
        self._vocabulary = len(tokenizer)
        ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        self.probe_L = np.array(ids[: context - 1], np.int32)
        """(L,) ids of a fixed text, which leaves room for one more token."""

    def request(self, prompt_P: np.ndarray, seed: int, sampling: Sampling) -> dict[str, Any]:
        """Return what draws one response."""
        room = self._context - len(prompt_P)
        return self._body(prompt_P, min(sampling.max_new_tokens, room)) | {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "logprobs": 0,
            "return_token_ids": True,
        }

    def response(self, answer: Mapping[str, Any], sampling: Sampling) -> Response:
        """Return the drawn ids, the end-of-sequence token among them, with their log mu."""
        said = Answer(answer, self._config)
        ids_T, logprobs_T = said.drawn(longest=sampling.max_new_tokens, vocabulary=self._vocabulary)
        return Response(
            ids_T=ids_T, finish_reason=said.finish_reason, behaviour_logprobs_T=logprobs_T
        )

    def score_request(self, ids_L: np.ndarray, k: int) -> dict[str, Any]:
        """Return what asks for the log-probabilities of ids[1:], and of the K likeliest.

        A server always generates, and its context must hold that token too. So the last id is
        not part of the prompt: it is *generated*, as the only one allowed, and a sequence may
        fill the context. Raw log-probabilities do not see that constraint.
        """
        return self._body(ids_L[:-1], 1) | {
            "temperature": 0.0,
            "allowed_token_ids": [int(ids_L[-1])],
            "prompt_logprobs": k,
            "logprobs": k,
            "return_tokens_as_token_ids": True,
        }

    def state_logprobs(self, answer: Mapping[str, Any], ids_L: np.ndarray) -> list[StateLogprobs]:
        """Return L-1 maps: the id that stands there, and the K likeliest, in any order."""
        return Answer(answer, self._config).states(len(ids_L) - 1)

    def _body(self, prompt: np.ndarray, max_tokens: int) -> dict[str, Any]:
        return _PLAIN | {
            "model": self._config.model,
            "prompt": prompt.tolist(),
            "max_tokens": max_tokens,
        }


class TextFormat:
    """Text in, text out, at /completions or /chat/completions of any server."""

    def __init__(self, config: OpenAiTeacherConfig, tokenizer: Any) -> None:
        """``tokenizer`` is the student's: it made the prompt's ids and makes the response's."""
        self._config, self._tokenizer = config, tokenizer
        self._chat = config.api == "chat"
        self.path = "/chat/completions" if self._chat else "/completions"
        first = tokenizer("x", verbose=False)["input_ids"][0]
        self._beginning = first if first == tokenizer.bos_token_id else None

    def request(self, prompt_P: np.ndarray, seed: int, sampling: Sampling) -> dict[str, Any]:
        """Return what draws one response."""
        return self.text_request(self._text(prompt_P), seed, sampling)

    def text_request(self, text: str, seed: int, sampling: Sampling) -> dict[str, Any]:
        """Return what draws one response to a text."""
        chat = {"messages": [{"role": "user", "content": text}]}
        return (chat if self._chat else {"prompt": text}) | {
            "model": self._config.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed & 0x7FFFFFFF,  # some servers take 32 bits
        }

    def text(self, answer: Mapping[str, Any]) -> str:
        """Return the response's text; a server may give none."""
        return Answer(answer, self._config).text(chat=self._chat)

    def response(self, answer: Mapping[str, Any], sampling: Sampling) -> Response:
        """Tokenise the response's text, cut to ``max_new_tokens`` of the student's tokens.

        One that ended has the end-of-sequence token, unless it is cut; an empty one is that
        token alone. No log-probabilities.
        """
        (ids,) = self._tokenizer(
            [self.text(answer)],
            add_special_tokens=False,
            split_special_tokens=True,  # text that spells a special token stays text
            verbose=False,
        )["input_ids"]
        ended = not ids or Answer(answer, self._config).finish_reason == "stop"
        whole = [*ids, self._tokenizer.eos_token_id] if ended else ids
        cut = whole[: sampling.max_new_tokens]
        return Response(
            ids_T=np.array(cut, np.int32),
            finish_reason="stop" if ended and len(cut) == len(whole) else "length",
        )

    def _text(self, prompt_P: np.ndarray) -> str:
        """Return a prompt's text; the server puts its own beginning-of-sequence token before."""
        ids = prompt_P.tolist()
        if len(ids) > 1 and ids[0] == self._beginning:
            ids = ids[1:]
        return self._tokenizer.decode(
            ids, skip_special_tokens=self._chat, clean_up_tokenization_spaces=False
        )
