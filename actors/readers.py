"""Text formats, and what every format offers: where each record begins, and what it holds.

A reader goes once over its file (``scan``) and afterwards reads any one record again by its
address (``read``), so that a file larger than memory costs eight bytes a row. JSONL, CSV and
text are read that way; JSON is held as text and Parquet as Arrow columns (``tables.py``).
"""

import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from configs.errors import DataError

Row = dict[str, Any]
"""One record: column name to value."""

BOM = b"\xef\xbb\xbf"
_WHITE_SPACE = " \t\n\r"
_NO_SKIP = "mend the file: broken rows can be left out of .jsonl and .csv only"


@dataclass(frozen=True, slots=True)
class BadRow:
    """Why a record is no usable row: a short reason to count by, and a phrase for the user."""

    reason: str
    detail: str


Scanned = tuple[int, int, Row | BadRow]
"""Address, one-based place in the file (see ``RowReader.unit``), content."""


class RowReader(Protocol):
    """What every format offers."""

    unit: str
    """What places count: ``line``, or ``row`` where a format has no lines."""

    def scan(self) -> Iterator[Scanned]:
        """Yield every record in file order, malformed ones as ``BadRow``."""
        ...

    def read(self, address: int) -> Row:
        """Return the well-formed record at an address that ``scan`` gave."""
        ...


class _LineReader:
    """A format with one record a line. Blank lines are no records."""

    unit = "line"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Open the file; ``columns`` make no difference here."""
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def scan(self) -> Iterator[Scanned]:
        """Yield every line that is not blank; its address is its first byte."""
        address, parse = self._file.seek(0), self._parse
        for line, raw in enumerate(self._file, 1):
            record = raw if address else raw.removeprefix(BOM)
            if record and not record.isspace():
                yield address, line, parse(record)
            address += len(raw)

    def read(self, address: int) -> Row:
        """Return the row whose line begins at this byte."""
        self._file.seek(address)
        raw = self._file.readline()
        row = self._parse(raw if address else raw.removeprefix(BOM))
        assert not isinstance(row, BadRow), f"the file changed while it was read: {row.detail}"
        return row

    def _parse(self, raw: bytes) -> Row | BadRow:
        raise NotImplementedError


class TextLines(_LineReader):
    """One document a line, as rows with the one column ``text``."""

    def _parse(self, raw: bytes) -> Row | BadRow:
        try:
            return {"text": str(raw, "utf-8").rstrip("\r\n")}
        except UnicodeDecodeError as error:
            return not_utf8(error)


class JsonLines(_LineReader):
    """One JSON object a line."""

    _decoder = json.JSONDecoder()
    # Takes less than half of the time, which is seconds in a million rows. What it refuses, such as
    # NaN, Python's own may still read, and says what is wrong with what it does not.
    _decode_fast = staticmethod(msgspec.json.Decoder().decode)

    def _parse(self, raw: bytes) -> Row | BadRow:
        try:
            row = self._decode_fast(raw)
            if type(row) is dict:
                return row
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        return self._parse_carefully(raw)

    def _parse_carefully(self, raw: bytes) -> Row | BadRow:
        try:
            return _object(self._decoder.decode(str(raw, "utf-8")))
        except UnicodeDecodeError as error:
            return not_utf8(error)
        except json.JSONDecodeError as error:
            if not raw.endswith(b"\n"):
                return BadRow("truncated", "the last line is cut off in the middle of its JSON")
            if raw.startswith(BOM):
                return BadRow("bad_json", "a byte order mark in the middle of the file")
            what = error.msg.removesuffix(" at")
            return BadRow("bad_json", f"not valid JSON ({what} at column {error.colno})")
        except (RecursionError, ValueError) as error:
            return BadRow("bad_json", _too_much(error))


class JsonList:
    """One JSON list of objects. The whole text is held: for large data use JSONL."""

    unit = "line"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Read the text."""
        self._path = path
        self._decoder = json.JSONDecoder()
        try:
            self._text = str(path.read_bytes().removeprefix(BOM), "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"data file {path}: {not_utf8(error).detail}") from None

    def scan(self) -> Iterator[Scanned]:
        """Yield every element; DataError where the list itself is malformed."""
        position, line = self._skip(0), 1
        if self._text[position : position + 1] != "[":
            raise self._error(
                position,
                "a .json file must hold one list of objects; for one object a line use .jsonl",
            )
        counted = 0
        position = self._skip(position + 1)
        while not self._text.startswith("]", position):
            line += self._text.count("\n", counted, position)
            counted = position
            value, end = self._decode(position)
            yield position, line, _object(value)
            position = self._skip(end)
            if self._text.startswith(",", position):
                position = self._skip(position + 1)
            elif not self._text.startswith("]", position):
                raise self._error(
                    position, "expected ',' or ']' after an object: is the file cut off?"
                )
        if self._skip(position + 1) < len(self._text):
            raise self._error(position + 1, f"more text after the end of the list; {_NO_SKIP}")

    def read(self, address: int) -> Row:
        """Return the row whose object begins at this character."""
        return self._decode(address)[0]

    def _decode(self, position: int) -> tuple[Any, int]:
        try:
            return self._decoder.raw_decode(self._text, position)
        except json.JSONDecodeError as error:
            raise self._error(error.pos, f"not valid JSON ({error.msg}); {_NO_SKIP}") from None
        except (RecursionError, ValueError) as error:
            raise self._error(position, f"{_too_much(error)}; {_NO_SKIP}") from None

    def _skip(self, position: int) -> int:
        text = self._text
        while position < len(text) and text[position] in _WHITE_SPACE:
            position += 1
        return position

    def _error(self, position: int, message: str) -> DataError:
        line = self._text.count("\n", 0, position) + 1
        return DataError(f"data file {self._path}, line {line}: {message}")


def _object(value: Any) -> Row | BadRow:
    if isinstance(value, dict):
        return value
    return BadRow("not_an_object", f"a JSON object is expected, got {type(value).__name__}")


def _too_much(error: RecursionError | ValueError) -> str:
    what = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
    return f"JSON that cannot be held ({what})"


def not_utf8(error: UnicodeDecodeError) -> BadRow:
    """Return the bad row for text in another encoding."""
    return BadRow("not_utf8", f"not UTF-8 (byte 0x{error.object[error.start]:02x}); save as UTF-8")
