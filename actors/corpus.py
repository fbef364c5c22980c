"""The corpus documents d of the language-model loss (DPKD, section 3.1)."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from actors.encoder import RowEncoder
from actors.permutation import Permutations
from actors.rows import Layout, load_rows


class Corpus:
    """Documents in a seeded order that is a function of a counter, so that resume is exact."""

    def __init__(
        self,
        path: Path,
        encoder: RowEncoder,
        *,
        max_tokens: int,
        seed: int,
        on_bad_row: Literal["error", "skip"],
    ) -> None:
        """Check every document; tokenise none. Raises DataError as ``load_rows`` does."""
        self._rows = load_rows(path, Layout(response="text"), on_bad_row=on_bad_row)
        self._encoder, self._max_tokens = encoder, max_tokens
        self._order = Permutations(len(self._rows), seed=seed, stream="corpus")

    @property
    def fingerprint(self) -> str:
        """Hex digest of the file."""
        return self._rows.fingerprint

    @property
    def skipped(self) -> Counter[str]:
        """Documents left out, by reason."""
        return self._rows.skipped

    def document(self, use: int) -> np.ndarray:
        """Return the document of the ``use``-th draw: (C,) int32, 2 <= C <= max_tokens.

        Every document is drawn once before any is drawn again. A short one ends with the
        end-of-sequence token; a long one is cut.
        """
        epoch, ordinal = divmod(use, len(self._rows))
        text = self._rows[int(self._order.of(epoch)[ordinal])]["text"]
        return self._encoder.response_ids([text])[0][: self._max_tokens]
