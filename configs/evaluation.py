"""When and how quality is measured."""

import re

from pydantic import Field, field_validator

from configs.base import Section


class EvaluationConfig(Section):
    """Rouge-L, exact match and reverse KL on the validation rows."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations during the run; 0: only before and after."""
    samples: int = Field(default=1, ge=1)
    """Sampled responses per validation prompt (the field averages five seeds)."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest evaluated response; None: as the student's sampling says."""
    generate: bool = True
    """Draw responses and score them, which takes a sampler even where the objective takes none;
    False: measure the likelihood of the gold responses alone."""
    reverse_kl: bool = True
    """Have the drawn responses scored by the teacher where there is one that can."""
    teacher: bool = True
    """Also evaluate the teacher, once."""
    answer_pattern: str | None = None
    """Regular expression with one group: exact match then compares what it last matches in
    response and reference, such as the number after ``####`` of GSM8K. None: the whole text."""
    logged_samples: int = Field(default=4, ge=0)
    """Generations written to samples.jsonl at each evaluation."""
    show_samples: bool = False
    """Print them, too."""

    @field_validator("answer_pattern")
    @classmethod
    def _pattern_has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"{pattern!r} must have one group (...), it has {groups}")
        return pattern
