"""A generated data file: rows of instruction, context and response, as long as Dolly's are."""

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

_WORDS = [
    "".join(Random(number).choices("aeioubcdfghklmnprstvw", k=2 + number % 9))
    for number in range(4000)
]
_COLUMNS = ("instruction", "context", "response")
_AT_A_TIME = 50_000


def write_rows(path: Path, count: int) -> None:
    """Write ``count`` rows of some 350 bytes in the format that the suffix names."""
    {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}[path.suffix](
        path, count
    )


def _rows(count: int) -> Iterator[tuple[str, str, str]]:
    random = Random(0)
    text = " ".join(random.choices(_WORDS, k=200_000))
    for number in range(count):
        start = random.randrange(len(text) - 1000)
        context = text[start : start + 120] if number % 3 == 0 else ""
        lengths = random.randrange(40, 100), random.randrange(60, 320)
        instruction = f"{number}: {text[start : start + lengths[0]]}?"
        yield instruction, context, text[start + 200 : start + 200 + lengths[1]]


def _write_jsonl(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in _rows(count):
            file.write(json.dumps(dict(zip(_COLUMNS, row, strict=True))) + "\n")


def _write_csv(path: Path, count: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(_rows(count))


def _write_parquet(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    rows = _rows(count)
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(0, count, _AT_A_TIME):
            columns = [list(column) for column in zip(*islice(rows, _AT_A_TIME), strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
