"""Rouge-L over token ids: known values, and the definition by recursion."""

from functools import cache
from typing import Literal

import numpy as np
import pytest

from actors.likeness import common_subsequence, likeness
from configs.wire import Response
from tests.builders import ids


def said(*tokens: int, ends: Literal["stop", "length"] = "length") -> Response:
    return Response(ids_T=ids(*tokens), finish_reason=ends)


def test_known_likenesses():
    assert likeness(said(5, 6, 7), said(5, 6, 7)) == 1.0
    assert likeness(said(5, 6, 7), said(8, 9)) == 0.0
    # Common: 5 7. Precision 2/3, recall 2/5: F = 2 * 2 / (3 + 5).
    assert likeness(said(5, 6, 7), said(9, 5, 9, 7, 9)) == pytest.approx(0.5)
    assert likeness(said(6, 5), said(5, 6)) == pytest.approx(0.5)  # order counts


def test_the_end_of_sequence_token_does_not_make_responses_alike():
    assert likeness(said(5, 2, ends="stop"), said(6, 2, ends="stop")) == 0.0
    assert likeness(said(5, 2, ends="stop"), said(5)) == 1.0
    assert likeness(said(2, ends="stop"), said(5, 2, ends="stop")) == 0.0
    assert likeness(said(2, ends="stop"), said(2, ends="stop")) == 1.0


def test_the_longest_common_subsequence_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, right = (rng.integers(0, 4, rng.integers(0, 9)) for _ in "ab")
        assert common_subsequence(left, right) == by_recursion(tuple(left), tuple(right))


@cache
def by_recursion(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    if not left or not right:
        return 0
    if left[-1] == right[-1]:
        return 1 + by_recursion(left[:-1], right[:-1])
    return max(by_recursion(left[:-1], right), by_recursion(left, right[:-1]))
