"""The scorer that asks an engine: which positions are the response's, and which tokens the top."""

from collections.abc import Sequence

import numpy as np
import pytest

from actors.engine_scoring import EngineScorer
from tests.builders import ids


class CountingEngine:
    """log p of the token at position i is -i; after any token, 8 is the likeliest, then 9."""

    def __init__(self) -> None:
        self.shown: list[list[int]] = []

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.shown += [ids.tolist() for ids in sequences]
        return [-np.arange(1, len(ids), dtype=np.float32) for ids in sequences]

    def prompt_distributions(
        self, sequences: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        assert k == 2
        tables = []
        for sequence in sequences:
            count = len(sequence) - 1
            logprobs = np.stack([-np.arange(1, count + 1), np.full(count, -50)], axis=1)
            tables.append((np.tile(ids(8, 9), (count, 1)), logprobs.astype(np.float32)))
        return tables


def test_the_response_s_part_of_a_sequence_is_its_score():
    (score,) = EngineScorer(CountingEngine()).score([ids(5, 6, 7)], [ids(8, 9)])
    # Value i is of ids[i]: the response's ids stand at 3 and 4.
    assert score.logprobs_T.tolist() == [-3.0, -4.0]
    assert score.first_token_logprobs_V is None and score.top_ids_TK is None


def test_the_likeliest_tokens_at_the_response_s_states_come_with_it():
    engine = CountingEngine()
    (score,) = EngineScorer(engine).score([ids(5, 6, 7)], [ids(8, 9)], top_k=2)
    assert score.top_ids_TK is not None and score.top_logprobs_TK is not None
    assert score.top_ids_TK.tolist() == [[8, 9], [8, 9]]
    assert score.top_logprobs_TK.tolist() == [[-3.0, -50.0], [-4.0, -50.0]]
    assert score.logprobs_T.tolist() == [-3.0, -50.0]
    assert engine.shown == []  # both tokens are among the likeliest


def test_only_a_sequence_with_a_token_that_is_unlikely_is_shown_again():
    engine = CountingEngine()
    scores = EngineScorer(engine).score(
        [ids(5, 6, 7), ids(5), ids(5)], [ids(8, 9), ids(8, 4), ids(8, 8, 8)], top_k=2
    )
    assert engine.shown == [[5, 8, 4]]
    assert [score.logprobs_T.tolist() for score in scores] == [
        [-3.0, -50.0],
        [-1.0, -2.0],
        [-1.0, -2.0, -3.0],
    ]


def test_a_first_token_s_distribution_is_not_to_be_asked():
    with pytest.raises(AssertionError, match="refuses first_token_distribution"):
        EngineScorer(CountingEngine()).score([ids(5)], [ids(8)], first_token=True)
