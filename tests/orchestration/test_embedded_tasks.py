"""The embedded tasks are reproducible, held apart and true to their contexts."""

import json
from pathlib import Path
from random import Random
from typing import Any

from orchestration.embedded_tasks import (
    DOMAINS,
    EXACT_SHARE,
    EXACT_TASKS,
    FILLER_SHARE,
    FILLERS,
    OMISSION_SHARE,
    REFERENCES,
    phrase,
    write_embedded_tasks,
)

DESCRIPTIONS = {domain.instruction for domain in DOMAINS}


def written(folder: Path, *, seed: int = 0, train: int = 600) -> tuple[list[Any], list[Any]]:
    write_embedded_tasks(folder, seed=seed, train_rows=train, valid_rows=120)
    files = (folder / "train.jsonl", folder / "valid.jsonl")
    train_rows, valid_rows = ([json.loads(line) for line in file.open()] for file in files)
    return train_rows, valid_rows


def facts_of(row: dict[str, Any]) -> dict[str, str]:
    return dict(line.split(": ") for line in row["context"].splitlines())


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        written(tmp_path / folder, seed=seed)
    for name in ("train.jsonl", "valid.jsonl"):
        first, again, other = ((tmp_path / f / name).read_bytes() for f in "abc")
        assert first == again
        assert first != other


def test_more_training_rows_leave_the_earlier_rows_and_validation_alone(tmp_path: Path) -> None:
    few_train, few_valid = written(tmp_path / "few", train=50)
    many_train, many_valid = written(tmp_path / "many", train=200)
    assert (len(few_train), len(many_train), len(few_valid)) == (50, 200, 120)
    assert many_train[:50] == few_train
    assert many_valid == few_valid


def test_no_validation_facts_occur_in_training_in_any_order(tmp_path: Path) -> None:
    train, valid = written(tmp_path)
    seen = {frozenset(row["context"].splitlines()) for row in train}
    assert not any(frozenset(row["context"].splitlines()) in seen for row in valid)


def test_every_reference_states_every_fact_of_its_context(tmp_path: Path) -> None:
    _, valid = written(tmp_path)
    described = [row for row in valid if row["instruction"] in DESCRIPTIONS]
    assert len(described) > 90
    for row in described:
        for value in facts_of(row).values():
            assert all(value in reference for reference in row["references"]), row


def test_training_descriptions_omit_facts_and_add_fillers_in_their_shares(tmp_path: Path) -> None:
    train, valid = written(tmp_path, train=1500)
    described = [row for row in train if row["instruction"] in DESCRIPTIONS]
    filled = [row for row in described if row["response"].startswith(FILLERS)]
    assert abs(len(filled) / len(described) - FILLER_SHARE) < 0.05
    required = set().union(*(domain.required for domain in DOMAINS))
    told = [
        value in row["response"]
        for row in described
        for key, value in facts_of(row).items()
        if key not in required
    ]
    assert abs(1 - sum(told) / len(told) - OMISSION_SHARE) < 0.05
    assert not any(row["response"].startswith(FILLERS) for row in valid)


def test_references_are_clean_sentences_without_marks_of_the_pattern(tmp_path: Path) -> None:
    train, valid = written(tmp_path)
    for row in train + valid:
        for reference in row["references"]:
            assert not set("[]{}()|") & set(reference), reference
            assert "  " not in reference
            assert reference == reference.strip()


def test_validation_carries_distinct_references_and_training_its_own_response(
    tmp_path: Path,
) -> None:
    train, valid = written(tmp_path)
    assert all(row["references"] == [row["response"]] for row in train)
    for row in valid:
        expected = REFERENCES if row["instruction"] in DESCRIPTIONS else 1
        assert len(set(row["references"])) == len(row["references"]) == expected
        assert row["response"] in row["references"]


def test_exact_tasks_have_the_right_answer() -> None:
    answers = {name: solve(["moon", "apple", "kite"]) for name, solve in EXACT_TASKS.items()}
    assert answers == {
        "Give the first word.": "moon",
        "Give the last word.": "kite",
        "Count the words.": "three",
    }


def test_written_exact_rows_agree_with_their_task_and_keep_their_share(tmp_path: Path) -> None:
    train, _ = written(tmp_path)
    exact = [row for row in train if row["instruction"] in EXACT_TASKS]
    assert abs(len(exact) / len(train) - EXACT_SHARE) < 0.08
    for row in exact:
        assert row["response"] == EXACT_TASKS[row["instruction"]](row["context"].split())


def test_a_clause_goes_when_its_fact_is_missing() -> None:
    pattern = "{name} serves tea[ near {near}]."
    assert phrase(pattern, {"name": "blue lark"}, Random(0)) == "blue lark serves tea."
    both = {"name": "blue lark", "near": "red fox"}
    assert phrase(pattern, both, Random(0)) == "blue lark serves tea near red fox."


def test_the_first_choice_of_words_is_the_most_frequent() -> None:
    drawn = [phrase("(one|two|three)", {}, Random(seed)) for seed in range(900)]
    assert drawn.count("one") > drawn.count("two") > drawn.count("three") > 0
