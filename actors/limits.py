"""What a model takes: token ids of its vocabulary, and sequences within its context."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoConfig

from actors.model_folder import UNREADABLE
from configs.errors import ConfigError, DataError, DependencyError
from configs.wire import Prompt, Response

Owner = Literal["teacher", "student"]
"""Whose model it is: the section of the recipe that errors point to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one model, and the checks against them."""

    owner: Owner
    vocab_size: int | None
    """Token ids are below this; None: a server that does not say."""
    context: int
    """Longest prompt plus response, in tokens."""

    def check_fit(self, prompts: Sequence[Prompt], responses: Sequence[Response | None]) -> None:
        """Raise DataError where ids are not the model's or a sequence exceeds its context.

        A response of None is still to be drawn, and needs room for one token.
        """
        for prompt, response in zip(prompts, responses, strict=True):
            ids = prompt.prompt_ids_P
            if response is not None:
                ids = np.concatenate([ids, response.ids_T])
            if ids.min() < 0 or ids.max() >= (self.vocab_size or sys.maxsize):
                raise DataError(
                    f"prompt {prompt.uid} (row {prompt.row}) holds token id {ids.max()}, outside "
                    f"the {self.owner}'s vocabulary of {self.vocab_size}; teacher and student must "
                    "share a tokenizer"
                )
            spare = 1 if response is None else 0
            if len(ids) + spare > self.context:
                raise DataError(
                    f"prompt {prompt.uid} (row {prompt.row}) makes {len(ids)} tokens, too long "
                    f"for the {self.owner}'s context of {self.context}; lower "
                    "data.max_prompt_tokens or sampling.max_new_tokens of student and teacher"
                )

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise ConfigError where the tokenizer has ids that the model does not know."""
        if self.vocab_size is not None and len(tokenizer) > self.vocab_size:
            raise ConfigError(
                f"the {self.owner} has a vocabulary of {self.vocab_size}, fewer than the "
                f"{len(tokenizer)} tokens of the run's tokenizer; set {self.owner}.model to a "
                "model of the tokenizer's family"
            )

    def top_k(self, wanted: int | None) -> int:
        """Return how many of the likeliest tokens ``wanted`` means; None is the vocabulary.

        Raises ConfigError for more than the vocabulary holds.
        """
        if wanted is None:
            assert self.vocab_size is not None, "RunConfig bounds what is asked of a server"
            return self.vocab_size
        if self.vocab_size is not None and wanted > self.vocab_size:
            raise ConfigError(
                f"{self.owner}.distribution_top_k is {wanted}, and the {self.owner}'s vocabulary "
                f"has {self.vocab_size} tokens; lower it, or set it to null for all of them"
            )
        return wanted


def declared_limits(
    model: str | Path,
    *,
    owner: Owner,
    trust_remote_code: bool,
    revision: str | None = None,
    max_model_len: int | None = None,
) -> Limits:
    """Return what a folder's or a hub's model declares; ``max_model_len`` may lower its context.

    Raises DependencyError when config.json cannot be used.
    """
    try:
        declared = AutoConfig.from_pretrained(
            model, revision=revision, trust_remote_code=trust_remote_code
        ).get_text_config()
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DependencyError(
            f"{owner} {model}: config.json cannot be used ({reason}); set {owner}.model to a "
            "complete model in Hugging Face layout"
        ) from error
    unbounded = sys.maxsize  # ALiBi models, for one, declare no longest sequence
    context = getattr(declared, "max_position_embeddings", None) or unbounded
    return Limits(
        owner=owner,
        vocab_size=declared.vocab_size,
        context=min(context, max_model_len or unbounded),
    )
