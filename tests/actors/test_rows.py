"""Good rows come back as they were, and bad ones are placed and counted.

Every kind of bad row and file is in ``tests/orchestration/malformed_data.py``.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rows import Layout, Rows, load_rows
from configs.errors import DataError

LAYOUT = Layout(prompt=("question",), response="answer", references="references")
GOOD = [
    {"question": "two?", "answer": "a pair"},
    {"question": 'said "no",\nthen left — 東', "answer": "b"},
    {"question": "", "answer": "c"},
]
ALL_GOOD = b'{"question": "q", "answer": "a"}\n'
SUFFIXES = [".jsonl", ".json", ".csv", ".parquet"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def write_bytes(folder: Path, content: bytes, name: str = "d.jsonl") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def skip(path: Path, layout: Layout = LAYOUT) -> Rows:
    return load_rows(path, layout, on_bad_row="skip")


def error(path: Path, layout: Layout = LAYOUT) -> str:
    with pytest.raises(DataError) as caught:
        load_rows(path, layout, on_bad_row="error")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_rows_in_any_order(tmp_path: Path, suffix: str) -> None:
    rows = load_rows(write(tmp_path / f"d{suffix}", GOOD), LAYOUT, on_bad_row="error")
    assert len(rows) == 3
    assert [rows[i] for i in (2, 0, 1)] == [GOOD[2], GOOD[0], GOOD[1]]
    assert rows.numbers.tolist() == [0, 1, 2]
    assert rows.sizes.tolist() == [10, len(GOOD[1]["question"]) + 1, 1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_prompts_and_only_those_share_a_hash(tmp_path: Path, suffix: str) -> None:
    data = [{"question": q, "answer": a} for q, a in [("x", "1"), ("y", "1"), ("x", "2")]]
    hashes = skip(write(tmp_path / f"d{suffix}", data)).prompt_hashes
    assert hashes[0] == hashes[2] != hashes[1]


def test_places_count_lines_from_one_and_rows_where_there_are_none(tmp_path: Path) -> None:
    places = {s: skip(write(tmp_path / f"d{s}", GOOD)).place(2) for s in SUFFIXES}
    assert places[".jsonl"].endswith("d.jsonl, line 3")
    assert places[".csv"].endswith("d.csv, line 5")  # after a header and a row of two lines
    assert places[".json"].endswith("d.json, line 10")
    assert places[".parquet"].endswith("d.parquet, row 3")


def test_a_last_line_without_newline_and_a_leading_byte_order_mark_are_fine(tmp_path: Path) -> None:
    rows = load_rows(
        write_bytes(tmp_path, b"\xef\xbb\xbf" + ALL_GOOD + ALL_GOOD.rstrip()),
        LAYOUT,
        on_bad_row="error",
    )
    assert [rows[0], rows[1]] == [{"question": "q", "answer": "a"}] * 2
    table = write_bytes(tmp_path, b"\xef\xbb\xbfquestion,answer\r\nq,a", "d.csv")
    assert load_rows(table, LAYOUT, on_bad_row="error")[0] == {"question": "q", "answer": "a"}


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "1" * 60, '"\\ud83d\\ude00"'])
def test_columns_that_nobody_reads_hold_whatever_python_reads(tmp_path: Path, value: str) -> None:
    line = '{"question": "q", "answer": "a", "score": ' + value + "}\n"
    rows = load_rows(write_bytes(tmp_path, line.encode()), LAYOUT, on_bad_row="error")
    assert repr(rows[0]) == repr(json.loads(line))


def test_bad_csv_records_cost_one_line_each(tmp_path: Path) -> None:
    content = b'question,answer\nq,1\nq,a,b\n\xff,2\n"open,3\nq,4\n\nq\nq,5\n'
    path = write_bytes(tmp_path, content, "d.csv")
    rows = skip(path)
    assert [rows[i]["answer"] for i in range(len(rows))] == ["1", "4", "5"]
    assert rows.skipped == {"bad_csv": 3, "not_utf8": 1}
    assert "d.csv, line 3: 3 fields where the header has 2" in error(path)


def test_a_csv_file_goes_on_behind_a_bad_record_wherever_it_is(tmp_path: Path) -> None:
    """One reader goes through the file, and a new one begins behind a record that it broke at."""
    records = ['q,"two\nlines"', "q,fine"] * 3
    for broken in range(7):
        lines = [*records[:broken], '"never closed,x', *records[broken:]]
        path = write_bytes(tmp_path, "\n".join(["question,answer", *lines, ""]).encode(), "d.csv")
        rows = skip(path)
        assert [rows[i]["answer"] for i in range(6)] == ["two\nlines", "fine"] * 3
        assert rows.skipped == {"bad_csv": 1}
        assert rows.numbers.tolist() == [n for n in range(7) if n != broken]


def test_parquet_rows_come_from_every_group_and_type(tmp_path: Path) -> None:
    data = [
        {"question": f"q{i}", "answer": f"a{i}", "references": [f"r{i}"] if i % 2 else None}
        for i in range(10)
    ]
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "d.parquet", row_group_size=3)
    rows = load_rows(tmp_path / "d.parquet", LAYOUT, on_bad_row="error")
    assert [rows[i] for i in range(10)] == data


def test_a_column_missing_from_a_table_is_named(tmp_path: Path) -> None:
    rows = [{"frage": "q", "antwort": "a"}]
    for suffix in (".csv", ".parquet"):
        message = error(write(tmp_path / f"d{suffix}", rows))
        assert "no column 'question' (the row has 'frage', 'antwort')" in message


def test_parquet_nulls_are_bad_rows(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a"}, {"question": None, "answer": "a"}]
    assert skip(write(tmp_path / "d.parquet", rows)).skipped == {"not_text": 1}


def test_references_are_a_list_a_json_cell_or_the_response(tmp_path: Path) -> None:
    listed = {"question": "q", "answer": "a", "references": ["x", "y"]}
    cell = {"question": "q", "answer": "a", "references": '["x", "y"]'}
    for suffix in (".jsonl", ".parquet"):
        assert LAYOUT.references_of(skip(write(tmp_path / f"d{suffix}", [listed]))[0]) == ("x", "y")
    assert LAYOUT.references_of(skip(write(tmp_path / "d.csv", [cell]))[0]) == ("x", "y")
    assert LAYOUT.references_of({"question": "q", "answer": "a", "references": []}) == ("a",)
    assert Layout(prompt=("question",)).references_of({"question": "q"}) == ()


def test_short_responses_are_left_out_and_counted_even_where_bad_rows_are_errors(
    tmp_path: Path,
) -> None:
    layout = Layout(prompt=("question",), response="answer", min_response_words=2)
    rows = load_rows(write(tmp_path / "d.jsonl", GOOD), layout, on_bad_row="error")
    assert rows[0] == GOOD[0]
    assert len(rows) == 1
    assert rows.skipped == {"short_response": 2}


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = skip(write(tmp_path / "a.jsonl", GOOD)).fingerprint
    assert first == skip(write(tmp_path / "b.jsonl", GOOD)).fingerprint
    assert first != skip(write(tmp_path / "c.jsonl", GOOD[::-1])).fingerprint


def test_text_files_are_one_document_a_line(tmp_path: Path) -> None:
    path = write_bytes(tmp_path, "one \r\n\n zwö\nlast".encode(), "c.txt")
    rows = skip(path, Layout(response="text"))
    assert [rows[i]["text"] for i in range(3)] == ["one ", " zwö", "last"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=6))
def test_whatever_text_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    data = [{"question": question, "answer": f"x{answer}"} for question, answer in pairs]
    folder = tmp_path_factory.mktemp("texts")
    for suffix in (".jsonl", ".json", ".parquet"):
        rows = load_rows(write(folder / f"d{suffix}", data), LAYOUT, on_bad_row="error")
        assert [rows[i] for i in range(len(rows))] == data


def test_a_large_file_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    row = json.dumps({"question": "q" * 150, "answer": "a" * 150}) + "\n"
    path.write_text(row * 200_000)  # 66 MB
    code = (
        # Not ru_maxrss: it begins with the parent's, which wrote the file.
        "import os, sys; from pathlib import Path; from actors.rows import *\n"
        "from benchmarks.processes import kilobytes\n"
        "before = kilobytes(os.getpid(), 'VmRSS')\n"
        "layout = Layout(prompt=('question',), response='answer')\n"
        "rows = load_rows(Path(sys.argv[1]), layout, on_bad_row='error')\n"
        "rows[199_999]\n"
        "print(kilobytes(os.getpid(), 'VmHWM') - before)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 30_000  # KiB
