"""Which model a server serves: a fingerprint, to notice when it is another one.

A server says only a name. So the model is also asked something: with token ids, the
log-probabilities of a fixed text; with text, a greedy response to a few words.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

PROBE = (
    "The quick brown fox jumps over 13 lazy dogs; naïve?\n\tdef f(x): return x ** 2\r\n"
    "Ünïcode  東京 <|endoftext|> </s> zq"
)
"""Text on which models differ, and tokenizers too; it ends in what no model expects."""
QUESTION = "The quick brown fox"
"""A text that is answered greedily; short enough for the smallest context."""
SAME_NATS = 0.05
"""Two looks at one model differ by less, on average over the probe's tokens: bfloat16 and the
make-up of a server's batches move log-probabilities by about 0.01."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What one look at a server found."""

    described: dict[str, Any]
    """What it says of the model: name, root, context, and the name it answers by."""
    answers: frozenset[str] = frozenset()
    """Its greedy responses to ``QUESTION``, asked several times; empty with token ids."""
    logprobs: np.ndarray | None = None
    """(L-1,) float32 of the probe's tokens; None with text."""

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of a hash; with ids, ``-`` and the probe's mean nats.

        Greedy responses count where they agree: on some servers they vary.
        """
        answer = sorted(self.answers) if len(self.answers) == 1 else []
        text = json.dumps([self.described, answer], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return digest if self.logprobs is None else f"{digest}-{-self.logprobs.mean():.2f}"

    def has(self, fingerprint: str) -> bool:
        """Return whether this may be the model of a fingerprint, its nats rounded or not."""
        if self.logprobs is None:
            return self.fingerprint == fingerprint
        digest, _, nats = fingerprint.partition("-")
        try:
            near = abs(float(nats) + float(self.logprobs.mean())) < SAME_NATS
        except ValueError:
            return False
        return near and self.fingerprint.partition("-")[0] == digest

    def is_same(self, later: "ServedModel") -> bool:
        """Return whether a later look found the same model."""
        if self.described != later.described:
            return False
        if self.logprobs is not None and later.logprobs is not None:
            shift = np.abs(self.logprobs - later.logprobs).mean()
            return bool(shift < SAME_NATS)
        return len(self.answers) > 1 or not self.answers.isdisjoint(later.answers)
