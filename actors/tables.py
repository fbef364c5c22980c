"""Tabular formats: CSV, read in place, and Parquet, held as Arrow columns."""

import csv
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from actors.readers import BOM, BadRow, Row, Scanned, not_utf8
from configs.errors import DataError, DependencyError


class Csv:
    """Comma-separated values with a header line; quoted fields may span lines."""

    unit = "line"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Open the file and read its header; DataError where a column occurs twice."""
        self._lines = _CsvLines(path.open("rb"))
        header = self._record()
        if isinstance(header, BadRow) or not header:
            detail = header.detail if isinstance(header, BadRow) else "no header"
            raise DataError(f"data file {path}, line 1: {detail}; a CSV begins with column names")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(
                f"data file {path}, line 1: column {twice[0]!r} occurs twice; rename one"
            )
        self._header = header
        self._first_line, self._first_address = self._lines.line, self._lines.address

    def scan(self) -> Iterator[Scanned]:
        """Yield every record that is not blank."""
        lines = self._lines
        lines.seek(self._first_address, self._first_line)
        reader = csv.reader(lines, strict=True)
        while True:
            address, line = lines.address, lines.line + 1
            record = _next(reader)
            if record is None:
                return
            if isinstance(record, BadRow):
                # Go on with the very next line, or one open quote would eat the lines after it.
                lines.seek(address, line - 1)
                lines.skip()
                reader = csv.reader(lines, strict=True)  # the old one is in the middle of a record
                yield address, line, record
            elif record:
                yield address, line, self._row(record)

    def read(self, address: int) -> Row:
        """Return the row whose record begins at this byte."""
        self._lines.seek(address, 0)
        record = self._record()
        assert isinstance(record, list), "the file changed while it was read"
        row = self._row(record)
        assert not isinstance(row, BadRow), f"the file changed while it was read: {row.detail}"
        return row

    def _record(self) -> list[str] | BadRow | None:
        return _next(csv.reader(self._lines, strict=True))

    def _row(self, record: list[str]) -> Row | BadRow:
        if len(record) != len(self._header):
            return BadRow(
                "bad_csv", f"{len(record)} fields where the header has {len(self._header)}"
            )
        return dict(zip(self._header, record, strict=True))


def _next(reader: Iterator[list[str]]) -> list[str] | BadRow | None:
    """Return the next record, None behind the last one."""
    try:
        return next(reader, None)
    except UnicodeDecodeError as error:
        return not_utf8(error)
    except csv.Error as error:
        return BadRow("bad_csv", f"not valid CSV ({error})")


class Parquet:
    """A Parquet file, of which the asked columns are held in memory as Arrow arrays."""

    unit = "row"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Load the columns; DataError where the file is no Parquet."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise DependencyError(
                f"data file {path}: Parquet needs `pip install pyarrow`"
            ) from None
        try:
            with pq.ParquetFile(path) as file:
                present = [name for name in columns if name in file.schema_arrow.names]
                # Columns nobody asked for are left out, unless that leaves none: then the error
                # about the missing column can say which ones there are.
                # Group by group: Arrow, asked for all at once, takes twice the memory.
                groups = range(file.num_row_groups)
                parts = [file.read_row_group(group, columns=present or None) for group in groups]
                self._table = pa.concat_tables(parts) if parts else file.schema_arrow.empty_table()
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0].removesuffix(".")
            raise DataError(
                f"data file {path} cannot be read as Parquet: {reason}; write or copy it again"
            ) from None

    def scan(self) -> Iterator[Scanned]:
        """Yield every row."""
        address = 0
        for batch in self._table.to_batches(max_chunksize=1024):
            columns = batch.to_pydict()  # by column takes half the time that by row does
            for values in zip(*columns.values(), strict=True):
                yield address, address + 1, dict(zip(columns, values, strict=True))
                address += 1

    def read(self, address: int) -> Row:
        """Return one row by its zero-based position."""
        return self._table.slice(address, 1).to_pylist()[0]


class _CsvLines:
    """Decoded lines of a binary file, which know where the next one begins."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        weakref.finalize(self, file.close)
        self.address = 0
        self.line = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        at_start, raw = self.address == 0, self.skip()
        if not raw:
            raise StopIteration
        return str(raw.removeprefix(BOM) if at_start else raw, "utf-8")

    def skip(self) -> bytes:
        """Step over one line, however broken, and return its bytes."""
        raw = self._file.readline()
        self.address += len(raw)
        self.line += bool(raw)
        return raw

    def seek(self, address: int, line: int) -> None:
        """Go on at this byte, with ``line`` lines before it."""
        self._file.seek(address)
        self.address, self.line = address, line
