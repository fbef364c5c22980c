"""Which files a run reads, and how a row becomes a prompt and a response."""

from pathlib import Path
from string import Formatter
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.base import Section


class Columns(Section):
    """Names of the columns in the data files."""

    response: str | None = Field(default="response", min_length=1)
    """The gold response; None: the rows are prompts alone."""
    references: str = Field(default="references", min_length=1)
    """Optional list of acceptable responses; where a row has none, its response is the one.
    In CSV, a JSON list in one cell."""


class DataConfig(Section):
    """Data files and their layout. JSONL, JSON, CSV and Parquet, told apart by suffix."""

    train: Path | Literal["embedded"] = "embedded"
    """Training file, or ``embedded`` for the generated tasks of the quickstart."""
    validation: Path | None = None
    """Validation file; None: ``validation_rows`` are split off the training file, seeded, each
    with another prompt. Other training rows with such a prompt leave the training set too:
    their responses become references."""
    validation_rows: int = Field(default=64, ge=0)
    """Rows used for evaluation (the first ones of the validation file, or split off train)."""
    embedded_rows: int = Field(default=4000, ge=32)
    """Training rows generated where ``train`` is ``embedded``."""
    columns: Columns = Columns()
    """Column mapping."""
    template: str | None = "{instruction}\n{context}\n"
    """Prompt template over the row's columns, ``{column}`` each; None: the tokenizer's chat
    template over a single user message made of ``chat_column``."""
    chat_column: str = "instruction"
    """Column that becomes the user message when ``template`` is None."""
    max_prompt_tokens: int = Field(default=256, ge=1)
    """Longer prompts are bad rows (paper: 256)."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """Longer gold responses (end-of-sequence token included) are bad rows; None: no bound but
    the model's context."""
    min_response_words: int = Field(default=0, ge=0)
    """Rows whose gold response has fewer words are left out, counted (paper: 11)."""
    on_bad_row: Literal["error", "skip"] = "error"
    """A malformed or too long row stops the run before any model loads, or is skipped and
    counted."""
    corpus: Path | None = None
    """Text (.txt, one document a line), or a data file with a ``text`` column, for the
    language-model loss; None: the gold responses serve as the corpus."""
    max_corpus_tokens: int = Field(default=256, ge=2)
    """Corpus documents are cut to this length."""
    tokenizer_vocab: int = Field(default=1000, ge=260)
    """Vocabulary of the byte-level BPE that is trained when both models are made."""

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """The columns that make a prompt, each once, in the template's order."""
        if self.template is None:
            return (self.chat_column,)
        return tuple(dict.fromkeys(_template_columns(self.template)))

    @field_validator("template")
    @classmethod
    def _template_is_plain(cls, template: str | None) -> str | None:
        if template is not None and not _template_columns(template):
            raise ValueError(
                f"the template {template!r} names no {{column}}: every prompt is equal"
            )
        return template

    @model_validator(mode="after")
    def _filters_have_a_response(self) -> Self:
        if self.columns.response is None and (self.min_response_words or self.max_response_tokens):
            raise ValueError(
                "data.min_response_words and data.max_response_tokens filter by the gold "
                "response, and data.columns.response=null says that there is none"
            )
        return self


def _template_columns(template: str) -> list[str]:
    """Name the columns of a template; ValueError for anything beyond plain ``{column}``."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"the template {template!r} has an unmatched brace ({error}); a literal one is "
            "written {{ or }}"
        ) from None
    columns = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name or spec or conversion or set(".[]") & set(name):
            raise ValueError(
                f"the template {template!r} may only hold plain {{column}} fields; a literal "
                "brace is written {{ or }}"
            )
        columns.append(name)
    return columns
