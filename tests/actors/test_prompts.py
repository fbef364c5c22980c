"""The stream of prompts: a function of its position, filtered, and kept apart from validation."""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

from actors import prompts as prompts_module
from actors.prompts import PromptSource, texts
from actors.tokenizer import train_tokenizer
from configs.data import Columns, DataConfig
from configs.errors import ConfigError, DataError
from configs.wire import Prompt, Uid

ROWS = [{"instruction": "say", "context": f"item {n}", "response": f"it is {n}"} for n in range(20)]
LONG = {"instruction": "say", "context": "word " * 60, "response": "yes"}
CHAT = (
    "{% for m in messages %}<u>{{ m.content }}</u>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


@cache
def tokenizer() -> Any:
    lines = [" ".join(row.values()) for row in [*ROWS, LONG]]
    return train_tokenizer(lines, 300, Path(mkdtemp(prefix="dpkd-prompts-")))


def write(folder: Path, rows: list[dict[str, Any]], name: str = "train.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(train: Path, *, seed: int = 0, context: int = 128, **changes: Any) -> PromptSource:
    samples = changes.pop("samples_per_prompt", 1)
    config = DataConfig(**{"validation_rows": 0, **changes})
    return PromptSource(
        config,
        tokenizer(),
        train=train,
        seed=seed,
        context=context,
        samples_per_prompt=samples,
    )


def rows_of(prompts: list[Prompt]) -> list[int]:
    return [prompt.row for prompt in prompts]


def text_of(ids: np.ndarray | None) -> str:
    return tokenizer().decode(ids)


def same(left: list[Prompt], right: list[Prompt]) -> bool:
    def plain(prompt: Prompt) -> tuple[Any, ...]:
        arrays = (prompt.prompt_ids_P, prompt.gold_ids_T, prompt.corpus_ids_C)
        lists = [None if array is None else array.tolist() for array in arrays]
        return prompt.uid, prompt.row, prompt.references, lists

    return [plain(p) for p in left] == [plain(p) for p in right]


def test_a_prompt_is_the_template_exactly_and_a_gold_response_ends(tmp_path: Path) -> None:
    prompt = source(write(tmp_path, ROWS), template="{{Q}} {context}\n{instruction}: ").take(1)[0]
    row = ROWS[prompt.row]
    assert text_of(prompt.prompt_ids_P) == f"{{Q}} {row['context']}\nsay: "
    assert text_of(prompt.gold_ids_T) == f"{row['response']}<|endoftext|>"
    assert prompt.gold_ids_T is not None
    assert prompt.gold_ids_T.dtype == prompt.prompt_ids_P.dtype == np.int32
    assert prompt.references == (row["response"],)
    assert prompt.corpus_ids_C is None


def test_a_special_token_spelt_in_a_response_stays_text(tmp_path: Path) -> None:
    row = {"instruction": "x", "context": "", "response": "a <|endoftext|> b"}
    gold = source(write(tmp_path, [row])).take(1)[0].gold_ids_T
    assert gold is not None
    assert np.flatnonzero(gold == tokenizer().eos_token_id).tolist() == [len(gold) - 1]
    assert text_of(gold) == "a <|endoftext|> b<|endoftext|>"


def test_an_epoch_has_every_row_once_and_the_next_another_order(tmp_path: Path) -> None:
    taken = source(write(tmp_path, ROWS)).take(40)
    assert [prompt.uid for prompt in taken] == [Uid(e, i, 0) for e in (0, 1) for i in range(20)]
    first, second = rows_of(taken[:20]), rows_of(taken[20:])
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first != list(range(20))


def test_the_order_is_a_function_of_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    assert same(source(path, seed=3).take(30), source(path, seed=3).take(30))
    assert rows_of(source(path, seed=3).take(20)) != rows_of(source(path, seed=4).take(20))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("at", [0, 1, 19, 20, 21, 47])
def test_the_stream_resumes_at_any_position(tmp_path: Path, at: int, samples: int) -> None:
    corpus = write(tmp_path, [{"text": f"document {n}"} for n in range(7)], "corpus.jsonl")
    path = write(tmp_path, ROWS)
    undisturbed = source(path, corpus=corpus, samples_per_prompt=samples).take(at + 9)
    before = source(path, corpus=corpus, samples_per_prompt=samples)
    before.take(at)
    after = source(path, corpus=corpus, samples_per_prompt=samples)
    after.seek(json.loads(json.dumps(before.position)))
    assert same(after.take(9), undisturbed[at:])


def test_the_pieces_in_which_prompts_are_taken_make_no_difference(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    pieces, whole = source(path), source(path)
    assert same([p for n in (1, 0, 7, 25) for p in pieces.take(n)], whole.take(33))


def test_each_use_of_a_row_gives_as_many_prompts_as_samples(tmp_path: Path) -> None:
    taken = source(write(tmp_path, ROWS), samples_per_prompt=3).take(7)
    assert [prompt.uid[1:] for prompt in taken] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0),
    ]  # fmt: skip
    assert len(set(rows_of(taken[:3]))) == 1
    assert taken[0].row != taken[3].row


def test_a_uid_names_its_prompt_again(tmp_path: Path) -> None:
    stream = source(write(tmp_path, ROWS))
    taken = stream.take(25)
    assert same([stream.prompt(prompt.uid) or taken[0] for prompt in taken], taken)
    assert stream.position == {"epoch": 1, "ordinal": 5, "sample": 0}


def test_a_split_keeps_validation_prompts_out_of_training(tmp_path: Path) -> None:
    twice = [*ROWS, *({**row, "response": "or so"} for row in ROWS)]
    stream = source(write(tmp_path, twice), validation_rows=5)
    held = stream.validation()
    assert [prompt.uid for prompt in held] == [Uid(-1, i, 0) for i in range(5)]
    assert len(stream) == 30
    trained = {text_of(prompt.prompt_ids_P) for prompt in stream.take(60)}
    assert len(trained) == 15
    assert not trained & {text_of(prompt.prompt_ids_P) for prompt in held}
    assert set(held[0].references) == {f"it is {held[0].row % 20}", "or so"}


def test_the_split_does_not_depend_on_the_process_or_the_epoch(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    first = source(path, validation_rows=5, seed=1)
    first.take(50)
    assert same(first.validation(), source(path, validation_rows=5, seed=1).validation())
    # Literal: the order of Python's hashes differs from process to process, the split must not.
    assert rows_of(first.validation()) == [17, 1, 2, 5, 6]


def test_a_validation_file_gives_its_first_rows(tmp_path: Path) -> None:
    held = [{**row, "references": ["r1", "r2"]} for row in ROWS[:6]]
    valid = write(tmp_path, held, "valid.jsonl")
    stream = source(write(tmp_path, ROWS), validation=valid, validation_rows=4)
    assert rows_of(stream.validation()) == [0, 1, 2, 3]
    assert stream.validation()[0].references == ("r1", "r2")
    assert len(stream) == 20


def test_a_split_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row left to train on: 20 of 20 are for validation"):
        source(write(tmp_path, ROWS), validation_rows=64)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"context": 40}, "tokens and the models' context is 40, which must hold the prompt"),
        ({"max_prompt_tokens": 20}, "tokens and data.max_prompt_tokens is 20"),
        ({"max_response_tokens": 1}, "tokens and data.max_response_tokens is 1"),
    ],
)
def test_a_row_too_long_is_found_at_the_start_with_its_line(
    tmp_path: Path, limits: dict[str, int], said: str
) -> None:
    path = write(tmp_path, [*ROWS[:3], LONG] if "max_response_tokens" not in limits else ROWS)
    with pytest.raises(DataError) as caught:
        source(path, **limits)
    message = str(caught.value)
    assert said in message
    assert f"train.jsonl, line {1 if 'max_response_tokens' in limits else 4}: " in message
    assert "data.on_bad_row=skip" in message


def test_prompt_and_gold_response_fit_the_context_together(tmp_path: Path) -> None:
    prompt = source(write(tmp_path, ROWS[:1])).take(1)[0]
    assert prompt.gold_ids_T is not None
    whole = len(prompt.prompt_ids_P) + len(prompt.gold_ids_T)
    assert len(source(write(tmp_path, ROWS[:1]), context=whole).take(1)) == 1
    with pytest.raises(DataError, match=f"models' context is {whole - 1}"):
        source(write(tmp_path, ROWS[:1]), context=whole - 1)


def test_rows_too_long_are_skipped_and_counted_once(tmp_path: Path) -> None:
    path = write(tmp_path, [*ROWS, LONG])
    stream = source(path, max_prompt_tokens=20, on_bad_row="skip")
    assert (len(stream), stream.skipped) == (20, {"too_long": 1})
    assert 20 not in rows_of(stream.take(60))
    assert stream.skipped == {"too_long": 1}


def test_in_a_large_file_a_long_row_may_be_found_when_its_turn_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts_module, "_CHECKED_ROWS", 5)
    monkeypatch.setattr(prompts_module, "_CHECKED_LONGEST", 1)
    path = write(tmp_path, [*ROWS, LONG, LONG])
    stream = source(path, max_prompt_tokens=20, on_bad_row="skip")
    assert (len(stream), stream.skipped) == (21, {"too_long": 1})
    taken = stream.take(40)
    assert stream.skipped == {"too_long": 2}
    assert Counter(rows_of(taken)) == dict.fromkeys(range(20), 2)
    ordinals = {prompt.uid.ordinal for prompt in taken[:20]}
    assert len(set(range(21)) - ordinals) == 1  # the skipped row's ordinal is not given out again


def test_when_every_row_turns_out_too_long_the_stream_does_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts_module, "_CHECKED_ROWS", 0)
    monkeypatch.setattr(prompts_module, "_CHECKED_LONGEST", 1)
    stream = source(write(tmp_path, [LONG] * 4), max_prompt_tokens=20, on_bad_row="skip")
    with pytest.raises(DataError, match=r"every row of .* is too long"):
        stream.take(1)


def test_short_responses_are_left_out_of_training_alone(tmp_path: Path) -> None:
    short = {"instruction": "say", "context": "x", "response": "no"}
    stream = source(
        write(tmp_path, [*ROWS, short]),
        validation=write(tmp_path, [short], "valid.jsonl"),
        validation_rows=1,
        min_response_words=3,
    )
    assert (len(stream), len(stream.validation())) == (20, 1)
    assert stream.skipped == {"short_response": 1}


def test_rows_may_be_prompts_alone(tmp_path: Path) -> None:
    rows = [{"instruction": "say", "context": "x"}]
    prompt = source(write(tmp_path, rows), columns=Columns(response=None)).take(1)[0]
    assert prompt.gold_ids_T is None
    assert prompt.references == ()


def test_without_a_template_the_chat_template_makes_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS[:1])
    with pytest.raises(ConfigError, match=r"has no chat template: set data.template"):
        source(path, template=None)
    try:
        tokenizer().chat_template = CHAT
        prompt = source(path, template=None, chat_column="context").take(1)[0]
    finally:
        tokenizer().chat_template = None
    assert text_of(prompt.prompt_ids_P) == "<u>item 0</u><a>"


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.jsonl"])
def test_every_corpus_document_is_drawn_once_before_any_again(tmp_path: Path, name: str) -> None:
    documents = ["word", "item 1 item", "word " * 50]
    path = tmp_path / name
    if name.endswith(".txt"):
        path.write_text("\n\n".join(documents) + "\n")
    else:
        write(tmp_path, [{"text": document} for document in documents], name)
    taken = source(write(tmp_path, ROWS), corpus=path, max_corpus_tokens=8).take(6)
    drawn = [text_of(prompt.corpus_ids_C) for prompt in taken]
    assert set(drawn[:3]) == set(drawn[3:])
    assert {"word<|endoftext|>", "item 1 item<|endoftext|>"} < set(drawn)
    lengths = [0 if p.corpus_ids_C is None else len(p.corpus_ids_C) for p in taken]
    assert max(lengths) == 8
    assert min(lengths) >= 2


def test_the_fingerprint_covers_every_file(tmp_path: Path) -> None:
    path, other = write(tmp_path, ROWS), write(tmp_path, ROWS[::-1], "other.jsonl")
    corpus = write(tmp_path, [{"text": "a b"}], "corpus.jsonl")
    prints = {
        source(path).fingerprint,
        source(other).fingerprint,
        source(path, validation=other, validation_rows=2).fingerprint,
        source(path, corpus=corpus).fingerprint,
    }
    assert len(prints) == 4
    assert source(path, seed=9).fingerprint in prints


def test_the_texts_of_a_file_are_its_prompts_and_responses(tmp_path: Path) -> None:
    config = DataConfig(template="{context}!")
    assert list(texts(config, write(tmp_path, ROWS[:2]))) == [
        "item 0!", "it is 0", "item 1!", "it is 1",
    ]  # fmt: skip
