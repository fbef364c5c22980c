"""The figures' book-keeping: medians against bars, what is kept, and the table of it."""

import json

import pytest

from benchmarks import figures, table
from benchmarks.figures import BARS, in_turns, report


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    monkeypatch.setattr(figures, "RESULTS", path)
    monkeypatch.setattr(figures.sys, "argv", ["/x/benchmarks/sampler.py", "--runs", "3"])
    return path


def test_the_median_is_held_against_the_bar(results, capsys):
    assert report("sampler", [0.5, 0.96, 0.97]) == 0
    assert report("loss_memory", [0.1, 0.36, 0.4]) == 1
    assert "MISSED" in capsys.readouterr().out
    kept = {each["name"]: each for each in json.loads(results.read_text())["figures"]}
    assert kept["sampler"] == {
        "name": "sampler",
        "ratio": 0.96,
        "bar": 0.95,
        "at_least": True,
        "runs": 3,
        "spread": [0.5, 0.97],
        "command": "python -m benchmarks.sampler --runs 3",
    }


def test_a_figure_replaces_its_own_and_no_other(results):
    report("queue", [1e4])
    report("sampler", [1.0])
    report("sampler", [0.9])
    assert [(each["name"], each["ratio"]) for each in figures.kept()] == [
        ("sampler", 0.9),
        ("queue", 1e4),
    ]


def test_who_goes_first_changes_with_each_run():
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    pairs = list(in_turns(3, lambda: turn("ours"), lambda: turn("other")))
    assert order == ["ours", "other", "other", "ours", "ours", "other"]
    assert pairs == [(1, 2), (4, 3), (5, 6)]


def test_the_table_says_what_is_kept_and_what_was_missed(results, tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{table.BEGIN}old\n{table.END}after\n")
    monkeypatch.setattr(table, "DOCUMENT", document)
    report("sampler", [0.9])
    table.write()
    table.write()
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| `sampler` |") == 1 and "≥ 0.95 | 0.9 (missed) |" in text


def test_the_document_shows_what_was_measured_last():
    assert table.table() in table.DOCUMENT.read_text(), "run python -m benchmarks.table"
    assert {each["name"] for each in figures.kept()} <= set(BARS)
