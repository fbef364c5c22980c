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


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 100 if ``prediction`` equals a reference up to case, punctuation and white space.

    Articles are kept (MiniLLM's and DPKD's protocol).
    """
    normal = _normalise(prediction)
    return 100.0 * any(normal == _normalise(reference) for reference in references)


def words(text: str) -> int:
    """Return the number of words, as white space parts them."""
    return len(text.split())


def _normalise(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
