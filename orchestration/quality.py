"""Scores of generated text, as the field computes them."""

import re
import string
from collections.abc import Sequence
from functools import cache

from rouge_score.rouge_scorer import RougeScorer

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return Rouge-L F-measure, stemmed, the best over ``references``, 0 to 100."""
    scores = (_scorer().score(reference, prediction)["rougeL"] for reference in references)
    return 100.0 * max(score.fmeasure for score in scores)


def exact_match(prediction: str, references: Sequence[str], answer: str | None = None) -> float:
    """Return 100 if ``prediction`` equals a reference up to case, punctuation and white space.

    Articles are kept (MiniLLM's and DPKD's protocol). ``answer`` is a pattern with one group:
    then what it last matches in either text is compared, and a text without a match has no answer.
    """
    given = _answer(prediction, answer)
    if given is None:
        return 0.0
    return 100.0 * any(given == _answer(reference, answer) for reference in references)


def words(text: str) -> int:
    """Return the number of words, as white space parts them."""
    return len(text.split())


def _answer(text: str, pattern: str | None) -> str | None:
    if pattern is None:
        return _normalise(text)
    found = re.findall(pattern, text)
    return _normalise(found[-1]) if found else None


def _normalise(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
