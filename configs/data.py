"""Which files a run reads, and how a row becomes a prompt and a response."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from configs.base import Section


class Columns(Section):
    """Names of the columns in the data files."""

    response: str = "response"
    """The gold response."""
    references: str = "references"
    """Optional list of acceptable responses; where a row has none, its response is the one."""


class DataConfig(Section):
    """Data files and their layout. JSONL, JSON, CSV and Parquet, told apart by suffix."""

    train: Path | Literal["embedded"] = "embedded"
    """Training file, or ``embedded`` for the generated tasks of the quickstart."""
    validation: Path | None = None
    """Validation file; None: ``validation_rows`` are split off the training file."""
    validation_rows: int = Field(64, ge=0)
    """Rows used for evaluation (the first ones of the validation file, or split off train)."""
    columns: Columns = Columns()
    """Column mapping."""
    template: str | None = "{instruction}\n{context}\n"
    """Prompt template over the row's columns; None: the tokenizer's chat template over a
    single user message made of ``chat_column``."""
    chat_column: str = "instruction"
    """Column that becomes the user message when ``template`` is None."""
    max_prompt_tokens: int = Field(256, ge=1)
    """Longer prompts are bad rows (paper: 256)."""
    max_response_tokens: int | None = Field(None, ge=1)
    """Longer gold responses are bad rows; None: no bound but the model's context."""
    min_response_words: int = Field(0, ge=0)
    """Rows whose gold response has fewer words are left out, counted (paper: 11)."""
    on_bad_row: Literal["error", "skip"] = "error"
    """A malformed or too long row stops the run before any model loads, or is skipped and
    counted."""
    corpus: Path | None = None
    """Text (.txt, one document a line) or JSONL with a ``text`` column for the language-model
    loss; None: the gold responses serve as the corpus."""
    max_corpus_tokens: int = Field(256, ge=2)
    """Corpus documents are cut to this length."""
    tokenizer_vocab: int = Field(1000, ge=260)
    """Vocabulary of the byte-level BPE that is trained when both models are made."""
