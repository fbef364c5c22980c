"""log p(y | x) by an engine's ``prompt_logprobs``: vLLM in this process, or a server."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from actors.malformed import MalformedAnswerError
from actors.scoring import Score


class PromptLogprobsEngine(Protocol):
    """The half of an engine that scores."""

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (L-1,) float32 for each (L,) int32, log p(ids[i+1] | ids[:i+1])."""
        ...

    def prompt_distributions(
        self, sequences: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each (L,) int32, the k likeliest tokens after ids[:i+1], likeliest first.

        They are (L-1, k) int32 ids and their (L-1, k) float32 log-probabilities.
        """
        ...


class EngineScorer:
    """Scores by ``prompt_logprobs``; it cannot give the first token's distribution.

    An engine hands out a whole distribution only as one Python object a vocabulary entry a
    position, so the configuration refuses ``first_token_distribution`` with this scorer.
    """

    def __init__(self, engine: PromptLogprobsEngine) -> None:
        """Score with a running engine, which the caller keeps and closes."""
        self._engine = engine

    def score(
        self,
        prompts: Sequence[np.ndarray],
        responses: Sequence[np.ndarray],
        *,
        first_token: bool = False,
        top_k: int | None = None,
    ) -> list[Score]:
        """Return one Score a pair, in the order given; see ``Scorer.score``."""
        assert not first_token, "the configuration refuses first_token_distribution here"
        sequences = [np.concatenate(pair) for pair in zip(prompts, responses, strict=True)]
        starts = [len(prompt) - 1 for prompt in prompts]  # these positions predict the response
        if top_k is None:
            found = self._engine.prompt_logprobs(sequences)
            return [
                Score(values[start:].astype(np.float32))
                for values, start in zip(found, starts, strict=True)
            ]
        tops = [
            (ids[start:].copy(), logprobs[start:].copy())
            for (ids, logprobs), start in zip(
                self._engine.prompt_distributions(sequences, top_k), starts, strict=True
            )
        ]
        logprobs = self._of_tokens(sequences, responses, tops)
        return [
            Score(values, top_ids_TK=ids, top_logprobs_TK=top_logprobs)
            for values, (ids, top_logprobs) in zip(logprobs, tops, strict=True)
        ]

    def _of_tokens(
        self,
        sequences: list[np.ndarray],
        responses: Sequence[np.ndarray],
        tops: list[tuple[np.ndarray, np.ndarray]],
    ) -> list[np.ndarray]:
        """Return the responses' own log-probabilities, (T,) float32.

        Only sequences with a token that is none of the likeliest are shown to the engine again.
        """
        found = [_among(ids_T, *top) for ids_T, top in zip(responses, tops, strict=True)]
        unknown = [index for index, values in enumerate(found) if np.isnan(values).any()]
        if unknown:
            try:
                again = self._engine.prompt_logprobs([sequences[index] for index in unknown])
            except MalformedAnswerError as error:
                raise error.among(unknown) from None
            for index, values in zip(unknown, again, strict=True):
                found[index] = values[-len(responses[index]) :].astype(np.float32)
        return found


def _among(ids_T: np.ndarray, top_ids_TK: np.ndarray, top_logprobs_TK: np.ndarray) -> np.ndarray:
    """Return (T,) float32, the log-probability of each id; NaN where it is not among the top."""
    is_it_TK = top_ids_TK == ids_T[:, None]
    own_T = np.where(is_it_TK, top_logprobs_TK, -np.inf).max(axis=1)
    return np.where(is_it_TK.any(axis=1), own_T, np.nan).astype(np.float32)
