"""Data files as checked rows: JSONL, JSON, CSV, Parquet and text, told apart by suffix.

Every record is parsed and its columns are checked once, when the file is loaded, whatever its
size: a malformed row is found before any model loads (`python -m benchmarks.big_data` says how
long that takes). What stays in memory is a few bytes a row; rows are read again when asked for.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np

from actors.readers import BadRow, JsonLines, JsonList, Row, RowReader, TextLines
from actors.tables import Csv, Parquet
from configs.errors import DataError

_FORMATS = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonList,
    ".csv": Csv,
    ".parquet": Parquet,
    ".txt": TextLines,
}
_DIGEST_BLOCK = 4 << 20
"""Bytes. Python's lock, which the scan holds, is asked for after each of them, and waited for."""
_NAMES = "data.template, data.chat_column and data.columns name the columns that are read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What every row must have. A bad row is one that lacks it."""

    prompt: tuple[str, ...] = ()
    """Columns of text that make the prompt; any may be empty."""
    response: str | None = None
    """Column of text that is not blank; None: rows have none."""
    references: str | None = None
    """Column that may be absent, and else is a list of text, itself or as JSON."""
    min_response_words: int = 0
    """Rows with fewer words in ``response`` are left out, counted as ``short_response``."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is looked at."""
        named = (*self.prompt, self.response, self.references)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def fault(self, row: Row) -> BadRow | None:
        """Return what is wrong with a row, None where it is good."""
        for name in self.prompt:
            if not _is_text(row.get(name)):
                return self._no_text(row, name)
        if self.response is not None:
            text = row.get(self.response)
            if not _is_text(text):
                return self._no_text(row, self.response)
            if not text or text.isspace():
                return BadRow("empty_response", f"column {self.response!r} is empty")
        if self.references is not None and row.get(self.references):
            return _references_fault(row, self.references)
        return None

    def references_of(self, row: Row) -> tuple[str, ...]:
        """Return a good row's acceptable answers: its references, else its response, if any."""
        given = row.get(self.references) if self.references else None
        if given:
            return tuple(json.loads(given) if isinstance(given, str) else given)
        return (row[self.response],) if self.response else ()

    def _no_text(self, row: Row, name: str) -> BadRow:
        if name not in row:
            has = ", ".join(map(repr, row)) or "none"
            hint = f"; {_NAMES}" if self.prompt else ""
            return BadRow("missing_column", f"no column {name!r} (the row has {has}){hint}")
        if isinstance(row[name], str):
            return BadRow("not_text", f"column {name!r} holds half a surrogate pair, no character")
        kind = "null" if row[name] is None else type(row[name]).__name__
        return BadRow("not_text", f"column {name!r} must be text, got {kind}")


@dataclass(slots=True, kw_only=True)
class Rows:
    """The usable rows of one file, as a sequence. Made by ``load_rows``."""

    path: Path
    fingerprint: str = ""
    """Hex digest of the file's bytes."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Records that are not among the rows, by reason."""
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """(N,) zero-based record number in the file of each usable row."""
    sizes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """(N,) characters of prompt columns and response."""
    prompt_hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """(N,) equal for rows whose prompt columns are equal; valid in this process only."""
    _reader: RowReader
    _addresses: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    _places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))

    def __len__(self) -> int:
        """Return the number of usable rows."""
        return len(self._addresses)

    def __getitem__(self, index: int) -> Row:
        """Return one usable row, parsed afresh."""
        return self._reader.read(int(self._addresses[index]))

    def place(self, index: int) -> str:
        """Return where a row is, for messages: ``train.jsonl, line 12``."""
        return f"{self.path}, {self._reader.unit} {self._places[index]}"


def load_rows(path: Path, layout: Layout, *, on_bad_row: Literal["error", "skip"]) -> Rows:
    """Go once over a file and return its usable rows.

    Raises DataError, naming file and line: for a file that is missing, empty or not what its
    suffix says; for the first bad row, unless ``on_bad_row`` is ``skip``; and where no usable
    row is left.
    """
    reader = _open_reader(path, layout.columns)
    with ThreadPoolExecutor(1, "digest") as beside:
        digest = beside.submit(_digest, path)
        rows = _scan(path, reader, layout, on_bad_row)
        rows.fingerprint = digest.result()
    if not len(rows):
        raise DataError(f"data file {path} has no usable row{_summary(rows.skipped)}")
    return rows


def _scan(
    path: Path, reader: RowReader, layout: Layout, on_bad_row: Literal["error", "skip"]
) -> Rows:
    rows = Rows(path=path, _reader=reader)
    addresses, places, numbers = array("q"), array("i"), array("i")
    sizes, hashes = array("i"), array("q")
    prompt, response, min_words = layout.prompt, layout.response, layout.min_response_words
    for number, (address, place, row) in enumerate(reader.scan()):
        fault = row if isinstance(row, BadRow) else layout.fault(row)
        if fault is not None:
            if on_bad_row == "error":
                raise bad_row_error(f"{path}, {reader.unit} {place}", fault.detail)
            rows.skipped[fault.reason] += 1
            continue
        assert isinstance(row, dict)
        if min_words and response and len(row[response].split()) < min_words:
            rows.skipped["short_response"] += 1
            continue
        texts = tuple([row[name] for name in prompt])
        addresses.append(address)
        places.append(place)
        numbers.append(number)
        sizes.append(sum(map(len, texts)) + (len(row[response]) if response else 0))
        hashes.append(hash(texts))
    rows._addresses, rows._places = np.asarray(addresses), np.asarray(places)
    rows.numbers, rows.sizes, rows.prompt_hashes = map(np.asarray, (numbers, sizes, hashes))
    return rows


def bad_row_error(place: str, detail: str) -> DataError:
    """Return the error for a bad row: where, what, and what to do next."""
    return DataError(
        f"{place}: {detail}; mend the row, or leave such rows out with data.on_bad_row=skip"
    )


def _open_reader(path: Path, columns: Sequence[str]) -> RowReader:
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(
            f"data file {path} {state} (looked for {path.absolute()}); "
            "see data.train, data.validation and data.corpus"
        )
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise DataError(
            f"data file {path} has the suffix {suffix!r}; known are "
            f"{', '.join(sorted(_FORMATS))}: unpack it, or save it as one of these"
        )
    if path.stat().st_size == 0:
        raise DataError(f"data file {path} is empty: give a file with at least one row")
    try:
        return _FORMATS[suffix](path, columns)
    except PermissionError:
        raise DataError(f"data file {path} may not be read: check its permissions") from None


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while block := file.read(_DIGEST_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _summary(skipped: Counter[str]) -> str:
    if not skipped:
        return ": give a file with at least one row"
    return ": left out were " + ", ".join(f"{n} as {reason}" for reason, n in skipped.most_common())


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is text that can be written; JSON can spell half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _references_fault(row: Row, name: str) -> BadRow | None:
    given: Any = row[name]
    try:
        values = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        values = None
    if isinstance(values, list) and values and all(map(_is_text, values)):
        return None
    return BadRow("bad_references", f"column {name!r} must be a list of text")
