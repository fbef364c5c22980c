"""The stream of prompts: seeded, filtered, and resumable at any position.

What a use of a prompt is, its row, tokens, gold response and corpus document, is a function of
its uid and the files alone. The stream's whole state is therefore one small position.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from actors.corpus import Corpus
from actors.encoder import Encoded, RowEncoder
from actors.permutation import Permutations
from actors.rows import Layout, Rows, bad_row_error, load_rows
from configs.data import DataConfig
from configs.errors import DataError
from configs.wire import Prompt, Uid

_CHECKED_ROWS = 50_000
"""Files of up to so many rows are tokenised whole when opened, to find rows that are too long
(about 7 000 rows a second on one core)."""
_CHECKED_LONGEST = 5_000
"""Of a larger file, only so many rows, the longest by characters, are tokenised when opened; a
shorter one that is too long after all is found when its turn comes."""


class _Held(NamedTuple):
    """A validation example: a row, and where its references come from."""

    rows: Rows
    index: int
    references: tuple[str, ...]


class PromptSource:
    """Data files to prompts. Its consumer is the pipeline; see ``take``."""

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Any,
        *,
        train: Path,
        seed: int,
        context: int,
        response_room: int = 1,
        rows: int | None = None,
        samples_per_prompt: int = 1,
    ) -> None:
        """Open and check the files.

        ``context`` is the smaller of the models' lengths, in tokens, of which every prompt must
        leave ``response_room`` free; of the training rows only the first ``rows`` are used;
        ``samples_per_prompt`` is the number of student responses, and so of uids, for each use
        of a row.

        Raises DataError, naming file and line, for the first row that is malformed or too long
        (``on_bad_row: error``), and where no row is left to train on; ConfigError where the
        tokenizer cannot make the prompts.
        """
        self._config, self._samples = config, samples_per_prompt
        self._encoder = RowEncoder(config, tokenizer, context=context, response_room=response_room)
        self._layout = layout_of(config)
        self._rows = load_rows(train, self._layout, on_bad_row=config.on_bad_row)
        self.skipped: Counter[str] = Counter(self._rows.skipped)
        """Rows and documents left out so far, by reason."""
        self._too_long: set[int] = set()
        usable = self._fitting(self._rows)
        held, usable, files = self._split(usable, seed)
        if not len(usable):
            raise DataError(
                f"data file {train} has no row left to train on: {len(held)} of {len(self._rows)} "
                f"are for validation; lower data.validation_rows or set data.validation"
            )
        self._train, self._validation = usable[:rows], self._validation_prompts(held)
        self._order = Permutations(len(self._train), seed=seed, stream="train")
        self._corpus = self._open_corpus(seed, context)
        files += [self._corpus.fingerprint] if self._corpus else []
        self.fingerprint: str = hashlib.blake2b(
            " ".join(files).encode(), digest_size=16
        ).hexdigest()
        """Hex digest over the content of the files: equal for equal data."""
        self._next = Uid(0, 0, 0)

    def __len__(self) -> int:
        """Return the number of training rows, which is the length of an epoch."""
        return len(self._train)

    @property
    def position(self) -> dict[str, int]:
        """Where the stream is: the uid that comes next, as plain JSON values."""
        return self._next._asdict()

    def seek(self, position: dict[str, int]) -> None:
        """Go on from a position that the same data, config and seed gave. Costs no reading."""
        self._next = Uid(**position)

    def seek_behind(self, uid: Uid) -> None:
        """Go on with the use that comes after ``uid``."""
        self._next = self._behind(uid)

    def take(self, n: int) -> list[Prompt]:
        """Return the next ``n`` prompts, in the order of their uids, epoch after epoch.

        Each use of a row yields ``samples_per_prompt`` prompts, equal but for ``uid.sample``.
        A row found too long only now (see ``_CHECKED_ROWS``) is a DataError, or skipped with
        its ordinal and counted, as ``on_bad_row`` says.
        """
        prompts: list[Prompt] = []
        passed_over = 0
        while len(prompts) < n:
            prompt = self.prompt(self._next)
            if prompt is not None:
                prompts.append(prompt)
                passed_over = 0
            else:
                passed_over += 1
                if passed_over == len(self):
                    raise DataError(f"every row of {self._rows.path} is too long")
            skipped = self._next._replace(sample=self._samples - 1)
            self._next = self._behind(self._next if prompt is not None else skipped)
        return prompts

    def _behind(self, uid: Uid) -> Uid:
        epoch, ordinal, sample = uid
        if sample + 1 < self._samples:
            return Uid(epoch, ordinal, sample + 1)
        return Uid(epoch, ordinal + 1, 0) if ordinal + 1 < len(self) else Uid(epoch + 1, 0, 0)

    def prompt(self, uid: Uid) -> Prompt | None:
        """Return the prompt that a uid of this stream names; None for a row that is skipped."""
        index = int(self._train[self._order.of(uid.epoch)[uid.ordinal]])
        if index in self._too_long:
            return None
        row = self._rows[index]
        encoded = self._encoder.encode([row])[0]
        if not self._accept(self._rows, index, encoded):
            self._too_long.add(index)
            return None
        use = (uid.epoch * len(self) + uid.ordinal) * self._samples + uid.sample
        return Prompt(
            uid=uid,
            row=int(self._rows.numbers[index]),
            prompt_ids_P=encoded.prompt_ids_P,
            gold_ids_T=encoded.gold_ids_T,
            corpus_ids_C=self._corpus.document(use) if self._corpus else None,
            references=self._layout.references_of(row),
        )

    def validation(self) -> list[Prompt]:
        """Return the validation prompts, ``Uid(-1, i, 0)`` each; they have no corpus document."""
        return list(self._validation)

    def _accept(self, rows: Rows, index: int, encoded: Encoded) -> bool:
        """Whether the lengths fit; if not, count the row or raise DataError."""
        if encoded.fault is None:
            return True
        if self._config.on_bad_row == "error":
            raise bad_row_error(rows.place(index), encoded.fault.detail)
        self.skipped[encoded.fault.reason] += 1
        return False

    def _fitting(self, rows: Rows) -> np.ndarray:
        """Return the indices of the rows that are not found too long now, in file order."""
        indices = np.arange(len(rows))
        if len(rows) > _CHECKED_ROWS:
            indices = np.sort(np.argpartition(rows.sizes, -_CHECKED_LONGEST)[-_CHECKED_LONGEST:])
        fits = np.ones(len(rows), bool)
        for start in range(0, len(indices), 1000):
            chunk = indices[start : start + 1000]
            for index, encoded in zip(
                chunk, self._encoder.encode([rows[i] for i in chunk]), strict=True
            ):
                fits[index] = self._accept(rows, int(index), encoded)
        return np.flatnonzero(fits)

    def _split(self, usable: np.ndarray, seed: int) -> tuple[list[_Held], np.ndarray, list[str]]:
        """Return the validation examples, the training rows, and the files' fingerprints."""
        files, count = [self._rows.fingerprint], self._config.validation_rows
        if self._config.validation is not None:
            rows = load_rows(
                self._config.validation,
                layout_of(self._config, min_response_words=0),
                on_bad_row=self._config.on_bad_row,
            )
            self.skipped += rows.skipped
            held = [
                _Held(rows, i, self._layout.references_of(rows[i]))
                for i in range(min(count, len(rows)))
            ]
            return held, usable, [*files, rows.fingerprint]
        hashes = self._rows.prompt_hashes[usable]
        chosen: dict[int, int] = {}
        for at in Permutations(len(usable), seed=seed, stream="validation").of(0):
            if len(chosen) == count:
                break
            chosen.setdefault(int(hashes[at]), int(usable[at]))
        train = usable[~np.isin(hashes, list(chosen))] if chosen else usable
        held = [
            _Held(self._rows, index, self._gathered(usable[hashes == key]))
            for key, index in chosen.items()
        ]
        return held, train, files

    def _gathered(self, indices: np.ndarray) -> tuple[str, ...]:
        """Return the references of rows with one prompt, each text once."""
        texts = (text for i in indices for text in self._layout.references_of(self._rows[int(i)]))
        return tuple(dict.fromkeys(texts))

    def _validation_prompts(self, held: list[_Held]) -> list[Prompt]:
        encoded = self._encoder.encode([each.rows[each.index] for each in held])
        kept = [
            (each, ids)
            for each, ids in zip(held, encoded, strict=True)
            if self._accept(each.rows, each.index, ids)
        ]
        return [
            Prompt(
                uid=Uid(-1, ordinal, 0),
                row=int(each.rows.numbers[each.index]),
                prompt_ids_P=ids.prompt_ids_P,
                gold_ids_T=ids.gold_ids_T,
                references=each.references,
            )
            for ordinal, (each, ids) in enumerate(kept)
        ]

    def _open_corpus(self, seed: int, context: int) -> Corpus | None:
        if self._config.corpus is None:
            return None
        corpus = Corpus(
            self._config.corpus,
            self._encoder,
            max_tokens=min(self._config.max_corpus_tokens, context),
            seed=seed,
            on_bad_row=self._config.on_bad_row,
        )
        self.skipped += corpus.skipped
        return corpus


def layout_of(config: DataConfig, *, min_response_words: int | None = None) -> Layout:
    """Return what the config asks of every row; a number of words given here goes before its."""
    words = config.min_response_words if min_response_words is None else min_response_words
    return Layout(
        prompt=config.prompt_columns,
        response=config.columns.response,
        references=config.columns.references,
        min_response_words=words,
    )


def texts(config: DataConfig, train: Path) -> Iterator[str]:
    """Yield the prompts and responses of a file as text: what a tokenizer is trained on."""
    layout = layout_of(config)
    rows = load_rows(train, layout, on_bad_row=config.on_bad_row)
    for index in range(len(rows)):
        row = rows[index]
        yield config.template.format_map(row) if config.template else row[config.chat_column]
        if layout.response:
            yield row[layout.response]
