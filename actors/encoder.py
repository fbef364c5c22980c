"""From a data row to token ids: the one place where prompts and gold responses become tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.readers import BadRow, Row
from configs.data import DataConfig
from configs.errors import ConfigError

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One row in tokens."""

    prompt_ids_P: np.ndarray
    """(P,) int32."""
    gold_ids_T: np.ndarray | None
    """(T,) int32, the end-of-sequence token included; None: the rows have no response."""
    fault: BadRow | None
    """Why the lengths do not fit; None: they do."""


class RowEncoder:
    """Formats and tokenises rows, and holds them to the length limits.

    A prompt is the template filled in, exactly, with the special tokens that the tokenizer
    puts before a text (Llama's beginning-of-sequence, GPT-2's none), or the chat template over
    one user message. A gold response is its text and the end-of-sequence token; text in it
    that spells a special token stays text.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Any, *, context: int, response_room: int = 1
    ) -> None:
        """Take the limits from the config; ``context`` is the models' length in tokens.

        A prompt must leave ``response_room`` tokens of it free for the response to be drawn.

        Raises ConfigError where the tokenizer lacks what the config asks for.
        """
        self._config, self._tokenizer, self._context = config, tokenizer, context
        self._room = response_room
        name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{name} has no end-of-sequence token, so responses would not end; name its "
                "eos_token in tokenizer_config.json"
            )
        if config.template is None and not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"{name} has no chat template: set data.template")
        self._eos = np.array([tokenizer.eos_token_id], np.int32)
        self.prompt_text = _prompt_text(config, tokenizer)

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Tokenise rows, in order."""
        encoded: list[Encoded] = []
        for start in range(0, len(rows), _BATCH):
            encoded += self._encode_batch(rows[start : start + _BATCH])
        return encoded

    def _encode_batch(self, rows: Sequence[Row]) -> list[Encoded]:
        chat, response = self._config.template is None, self._config.columns.response
        # A chat template writes its own special tokens into the text.
        prompts = self._ids([self.prompt_text(row) for row in rows], add_special_tokens=not chat)
        if not chat:
            prompts = [self._without_end(ids) for ids in prompts]
        if response is None:
            return [self._checked(prompt, None) for prompt in prompts]
        golds = self.response_ids([row[response] for row in rows])
        return [self._checked(p, g) for p, g in zip(prompts, golds, strict=True)]

    def response_ids(self, texts: list[str]) -> list[np.ndarray]:
        """Tokenise texts that end: each (T,) int32 with the end-of-sequence token."""
        ids = self._ids(texts, add_special_tokens=False, split_special_tokens=True)
        return [np.concatenate((each, self._eos)) for each in ids]

    def _ids(self, texts: list[str], **options: bool) -> list[np.ndarray]:
        batch = self._tokenizer(texts, verbose=False, return_attention_mask=False, **options)
        return [np.array(ids, np.int32) for ids in batch["input_ids"]]

    def _without_end(self, ids: np.ndarray) -> np.ndarray:
        """Drop an end-of-sequence token that the tokenizer put after the prompt."""
        return ids[:-1] if len(ids) > 1 and ids[-1] == self._eos[0] else ids

    def _checked(self, prompt: np.ndarray, gold: np.ndarray | None) -> Encoded:
        fault = self._fault(len(prompt), len(gold) if gold is not None else None)
        return Encoded(prompt_ids_P=prompt, gold_ids_T=gold, fault=fault)

    def _fault(self, prompt: int, gold: int | None) -> BadRow | None:
        config, context = self._config, self._context
        if prompt == 0:
            return BadRow("empty_prompt", "the prompt has no tokens")
        response = 0 if gold is None else gold
        longest = config.max_response_tokens
        whole = f"the models' context is {context}"
        limits = [
            (
                prompt + self._room > context,
                f"the prompt has {prompt} tokens and {whole}, which must hold the prompt and "
                f"{self._room} new token(s): see max_new_tokens of student, teacher and evaluation",
            ),
            (
                prompt > config.max_prompt_tokens,
                f"the prompt has {prompt} tokens and "
                f"data.max_prompt_tokens is {config.max_prompt_tokens}",
            ),
            (
                longest is not None and response > longest,
                f"the response has {response} tokens and data.max_response_tokens is {longest}",
            ),
            (
                prompt + response > context,
                f"prompt and response have {prompt} + {response} tokens and {whole}",
            ),
        ]
        detail = next((text for broken, text in limits if broken), None)
        return BadRow("too_long", detail) if detail else None


def _prompt_text(config: DataConfig, tokenizer: Any) -> Callable[[Row], str]:
    if config.template is not None:
        return config.template.format_map
    column = config.chat_column

    def chat(row: Row) -> str:
        messages = [{"role": "user", "content": row[column]}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    return chat
