"""Malformed rows and data files, each with the sentence that answers it.

``…`` stands for words of Python's parsers or of pyarrow; ``{path}`` is the file's path.

Three things are no errors. A byte order mark at the beginning of a file is skipped, in every
format. A last line without its newline is a row like others. Rows have no ids that could be
twice: a row is named by its place, and rows of one prompt are further answers to it.
"""

from typing import NamedTuple

GOOD = "".join(
    f'{{"instruction": "say {i}", "context": "it", "response": "said {i}"}}\n' for i in range(6)
).encode()
HEADER = b"instruction,context,response\n"
GOOD_CSV = HEADER + b"".join(b"say %d,it,said %d\n" % (i, i) for i in range(6))
BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """A bad row after six good rows, and before six more where it is a whole line."""

    what: str
    row: bytes
    reason: str
    """What it is counted by under ``on_bad_row: skip``."""
    said: str
    """What is said of it otherwise, between its place and the advice."""
    name: str = "d.jsonl"
    overrides: tuple[str, ...] = ()


class File(NamedTuple):
    """A file that cannot be used at all, whatever ``on_bad_row`` says."""

    what: str
    content: bytes
    said: str
    name: str = "d.jsonl"


def row(instruction: str = '"say"', context: str = '"it"', response: str = '"said"') -> bytes:
    """A row as JSON; ``instruction``, ``context`` and ``response`` are JSON too."""
    fields = f'"instruction": {instruction}, "context": {context}, "response": {response}'
    return f"{{{fields}}}\n".encode()


COLUMNS = "data.template, data.chat_column and data.columns name the columns that are read"
HALF = "holds half a surrogate pair, no character"

ROWS = [
    Row("a last line that is cut off", row()[:30], "truncated", "the last line is cut off in the "
        "middle of its JSON"),
    Row("broken JSON", b"{oops}\n", "bad_json", "not valid JSON (… at column 2)"),
    Row("a quote that never closes", b'{"instruction": "say\n', "bad_json",
        "not valid JSON (Invalid control character at column 21)"),
    Row("two objects in a line", row()[:-1] + row(), "bad_json",
        "not valid JSON (Extra data at column 60)"),
    Row("a byte order mark in the middle", BOM + row(), "bad_json",
        "a byte order mark in the middle of the file"),
    Row("zero bytes", bytes(50) + b"\n", "bad_json",
        "not valid JSON (Expecting value at column 1)"),
    Row("brackets without end", b"[" * 100_000 + b"\n", "bad_json",
        "JSON that cannot be held (nested too deeply)"),
    Row("a number of 5000 digits", row(context="1" * 5000), "bad_json",
        "JSON that cannot be held (a number too long)"),
    Row("another encoding", row(response='"caf\xe9"').decode().encode("latin-1"), "not_utf8",
        "not UTF-8 (byte 0xe9); save as UTF-8"),
    Row("a list for an object", b'["say", "it", "said"]\n', "not_an_object",
        "a JSON object is expected, got list"),
    Row("a field missing", b'{"instruction": "say", "response": "said"}\n', "missing_column",
        f"no column 'context' (the row has 'instruction', 'response'); {COLUMNS}"),
    Row("a number for text", row(instruction="3"), "not_text",
        "column 'instruction' must be text, got int"),
    Row("NaN for text", row(context="NaN"), "not_text",
        "column 'context' must be text, got float"),
    Row("a list for text", row(instruction='["say"]'), "not_text",
        "column 'instruction' must be text, got list"),
    Row("null for text", row(response="null"), "not_text",
        "column 'response' must be text, got null"),
    Row("half a surrogate pair in a prompt", row(instruction=r'"\ud83d"'), "not_text",
        f"column 'instruction' {HALF}"),
    Row("half a surrogate pair in a response", row(response=r'"said \udfff"'), "not_text",
        f"column 'response' {HALF}"),
    Row("a response of white space", row(response='" "'), "empty_response",
        "column 'response' is empty"),
    Row("references that are no text", row(context='"it", "references": [1]'), "bad_references",
        "column 'references' must be a list of text"),
    Row("references with half a surrogate pair", row(context=r'"it", "references": ["\ud83d"]'),
        "bad_references", "column 'references' must be a list of text"),
    Row("a prompt of nothing", row(instruction='""'), "empty_prompt", "the prompt has no tokens",
        overrides=("data.template={instruction}",)),
    Row("a prompt too long for the models", row(context='"' + "it " * 90 + '"'), "too_long",
        "the prompt has … tokens and the models' context is 64, which must hold the prompt and 8 "
        "new token(s): see max_new_tokens of student, teacher and evaluation"),
    Row("a prompt and response too long for the models", row(response='"' + "it " * 90 + '"'),
        "too_long", "prompt and response have … tokens and the models' context is 64"),
    Row("a CSV record that is too short", b"say,it\n", "bad_csv",
        "2 fields where the header has 3", "d.csv"),
    Row("a CSV quote that never closes", b'"say,it,said\n', "bad_csv",
        "not valid CSV (unexpected end of data)", "d.csv"),
    Row("a CSV record in another encoding", b"say,it,caf\xe9\n", "not_utf8",
        "not UTF-8 (byte 0xe9); save as UTF-8", "d.csv"),
]  # fmt: skip

KNOWN = ".csv, .json, .jsonl, .ndjson, .parquet, .txt: unpack it, or save it as one of these"
NOTHING = "data file {path} has no usable row: give a file with at least one row"
NO_SKIP = "mend the file: broken rows can be left out of .jsonl and .csv only"
PARQUET = "data file {path} cannot be read as Parquet: …; write or copy it again"

FILES = [
    File("nothing", b"", "data file {path} is empty: give a file with at least one row"),
    File("only white space", b" \n\t\n\n", NOTHING),
    File("only a byte order mark", BOM + b"\n", NOTHING),
    File("an empty list", b"[]", NOTHING, "d.json"),
    File("only a header", HEADER, NOTHING, "d.csv"),
    File("one object for a list", row(), "data file {path}, line 1: a .json file must hold one "
         "list of objects; for one object a line use .jsonl", "d.json"),
    File("a list that is cut off between objects", b"[" + row() + b"\n\n",
         "data file {path}, line 4: expected ',' or ']' after an object: is the file cut off?",
         "d.json"),
    File("a list that is cut off within one", b"[\n" + row()[:30],
         f"data file {{path}}, line 2: not valid JSON (…); {NO_SKIP}", "d.json"),
    File("a list with broken JSON", b"[\n" + row() + b", {oops}]",
         f"data file {{path}}, line 3: not valid JSON (…); {NO_SKIP}", "d.json"),
    File("text after the list", b"[" + row() + b"] [",
         f"data file {{path}}, line 2: more text after the end of the list; {NO_SKIP}", "d.json"),
    File("a list in UTF-16", "[]".encode("utf-16"),
         "data file {path}: not UTF-8 (byte 0xff); save as UTF-8", "d.json"),
    File("a table in UTF-16", HEADER.decode().encode("utf-16"), "data file {path}, line 1: not "
         "UTF-8 (byte 0xff); save as UTF-8; a CSV begins with column names", "d.csv"),
    File("a column twice", b"instruction,response,response\n",
         "data file {path}, line 1: column 'response' occurs twice; rename one", "d.csv"),
    File("a Parquet file that is cut off", b"PAR1", PARQUET, "d.parquet"),
    File("JSON that is named Parquet", GOOD, PARQUET, "d.parquet"),
    File("a packed file", b"\x1f\x8b",
         f"data file {{path}} has the suffix '.gz'; known are {KNOWN}", "d.jsonl.gz"),
    File("a spreadsheet", b"PK",
         f"data file {{path}} has the suffix '.xlsx'; known are {KNOWN}", "d.xlsx"),
    File("a name without suffix", GOOD,
         f"data file {{path}} has the suffix ''; known are {KNOWN}", "data"),
]  # fmt: skip
