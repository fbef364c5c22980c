"""A trained tokenizer is an ordinary one, and two tokenizers are told apart by what they do."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from actors.tokenizer import (
    load_tokenizer,
    require_same_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)
from configs.errors import ConfigError, DependencyError

TEXTS = ["the blue lark serves thai food", "the golden otter serves greek food"] * 20


@cache
def trained_folder(words: str = "") -> Path:
    folder = Path(mkdtemp(prefix="dpkd-tokenizer-"))
    train_tokenizer([*TEXTS, words * 20], 280, folder)
    return folder


def trained() -> Any:
    return load_tokenizer(str(trained_folder()))


def test_a_trained_tokenizer_is_read_by_autotokenizer_and_gives_text_back() -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained_folder())
    text = "  the lark — 東京\n\tends, here ."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == 280
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 0, 0)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert len(tokenizer("the")["input_ids"]) == 1


def test_training_twice_gives_the_same_files(tmp_path: Path) -> None:
    train_tokenizer(iter([*TEXTS, ""]), 280, tmp_path)
    names = sorted(path.name for path in trained_folder().iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (trained_folder() / name).read_bytes()


def test_the_fingerprint_survives_saving_moving_padding_and_truncating(tmp_path: Path) -> None:
    tokenizer = trained()
    first = tokenizer_fingerprint(tokenizer)
    tokenizer(TEXTS, padding=True, truncation=True, max_length=3)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "copy")
    assert tokenizer_fingerprint(tokenizer) == first
    assert tokenizer_fingerprint(load_tokenizer(str(tmp_path / "copy"))) == first


def test_the_fingerprint_sees_vocabulary_splitting_added_and_end_tokens() -> None:
    changed = [trained() for _ in range(4)]
    changed[0].backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    changed[1].add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    changed[2].eos_token = "!"
    changed[3] = load_tokenizer(str(trained_folder("kiosk")))
    prints = [tokenizer_fingerprint(each) for each in [trained(), *changed]]
    assert len(set(prints)) == 5


def test_different_tokenizers_are_an_error_that_names_both() -> None:
    other = load_tokenizer(str(trained_folder("kiosk")))
    require_same_tokenizer(trained(), trained())
    with pytest.raises(ConfigError) as caught:
        require_same_tokenizer(trained(), other)
    assert str(trained_folder()) in str(caught.value)
    assert str(trained_folder("kiosk")) in str(caught.value)


def test_an_unreachable_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DependencyError, match="'nobody/nothing'"):
        load_tokenizer("nobody/nothing")
