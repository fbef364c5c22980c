"""The reference: log-probabilities of both responses by the initial student, which stays.

    tuples ──annotate──► the same tuples, with log ref(y_t | x) and log ref(y_s | x)

y_t is met again in every epoch and every run from the same initial student: its log-probabilities
are kept on disk. y_s is fresh, and scored every time.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from actors.judging import Place, places, put_back
from actors.limits import declared_limits
from actors.model_folder import model_fingerprint, model_folder
from actors.scoring import TorchScorer, gives_finite
from actors.teacher_cache import TeacherCache, response_key
from configs.errors import NonFiniteError
from configs.models import DType
from configs.packing import pack, unpack
from configs.wire import PackedTuple, Parcel


class ReferenceServer:
    """Scores by the weights that training started from. Loads them when first needed."""

    def __init__(
        self,
        model: str,
        *,
        dtype: DType,
        trust_remote_code: bool,
        batch_tokens: int,
        cache_folder: Path | None,
        revision: str | None = None,
    ) -> None:
        """Find the model's files and open the cache; load no weights yet.

        ``model`` is a folder or hub name; ``batch_tokens`` bounds the padded tokens of one
        forward; ``cache_folder`` None keeps what is known for this run only. Raises
        DependencyError when the model is incomplete or the cache cannot be written.
        """
        self._folder = model_folder(model, revision=revision)
        self._dtype: DType = dtype
        self._trust_remote_code = trust_remote_code
        self._batch_tokens = batch_tokens
        self._limits = declared_limits(
            self._folder, owner="student", trust_remote_code=trust_remote_code
        )
        self._cache = TeacherCache(self._cache_path(cache_folder))
        self._scorer: TorchScorer | None = None
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load the weights; raises NonFiniteError when they give no numbers for a few tokens."""
        with self._lock:
            if not gives_finite(self._running_scorer(), self._limits):
                raise NonFiniteError(
                    f"the initial student {self._folder} gives log-probabilities that are not "
                    "finite; check its weights, or serve it in float32"
                )

    def annotate(self, packed: list[PackedTuple]) -> Parcel:
        """Return the tuples with ``reference_logprobs_T`` set on every response they hold.

        A response that has it keeps it. A value that is not finite stays in its place, for the
        queue to drop, and is not cached. Raises DataError for a sequence that does not fit.
        """
        tuples = unpack(packed)
        unknown = [p for p in places(tuples) if p.response.reference_logprobs_T is None]
        with self._lock:
            again = [place for place in unknown if place.side == "teacher_response"]
            fresh = [place for place in unknown if place.side == "student_response"]
            found = list(zip(again, self._known(again), strict=True))
            found += zip(fresh, self._score(fresh), strict=True)
        known = [
            (place, replace(place.response, reference_logprobs_T=values)) for place, values in found
        ]
        return pack(put_back(tuples, known)).parcel()

    def statistics(self) -> dict[str, float]:
        """Return the counts since start, named as ``TeacherServer.statistics`` names them.

        ``cache_hits`` and ``cache_misses`` count responses y_t.
        """
        names = ("cache_hits", "cache_misses", "scored_tokens")
        counts = {name: float(self._counts[name]) for name in names}
        return counts | {
            "cache_corrupt": float(self._cache.corrupt),
            "cache_failures": float(self._cache.failures),
        }

    def close(self) -> None:
        """Free the weights and close the cache."""
        with self._lock:
            self._scorer = None
            self._cache.close()

    def _known(self, asked: Sequence[Place]) -> list[np.ndarray]:
        """Return log ref of each y_t, from the cache where it was scored before."""
        keys = [response_key({}, p.prompt.prompt_ids_P, p.response.ids_T) for p in asked]
        known: dict[bytes, np.ndarray] = {}
        for key, response in self._cache.get(keys).items():
            if response.teacher_logprobs_T is not None:
                known[key] = response.teacher_logprobs_T
        new = {key: place for key, place in zip(keys, asked, strict=True) if key not in known}
        scored = dict(zip(new, self._score(list(new.values())), strict=True))
        # In this file the teacher's field of a record holds the reference's log-probabilities.
        self._cache.put(
            {
                key: replace(new[key].response, teacher_logprobs_T=values)
                for key, values in scored.items()
                if np.isfinite(values).all()
            }
        )
        self._counts["cache_misses"] += len(scored)
        self._counts["cache_hits"] += len(keys) - len(scored)
        known |= scored
        return [known[key] for key in keys]

    def _score(self, asked: Sequence[Place]) -> list[np.ndarray]:
        if not asked:
            return []
        prompts, responses = [p.prompt for p in asked], [p.response for p in asked]
        self._limits.check_fit(prompts, responses)
        self._counts["scored_tokens"] += sum(len(response.ids_T) for response in responses)
        scores = self._running_scorer().score(
            [prompt.prompt_ids_P for prompt in prompts],
            [response.ids_T for response in responses],
        )
        return [score.logprobs_T for score in scores]

    def _running_scorer(self) -> TorchScorer:
        if self._scorer is None:
            self._scorer = TorchScorer(
                str(self._folder),
                dtype=self._dtype,
                trust_remote_code=self._trust_remote_code,
                batch_tokens=self._batch_tokens,
                owner="student",
            )
        return self._scorer

    def _cache_path(self, folder: Path | None) -> Path | None:
        if folder is None:
            return None
        fingerprint = model_fingerprint(self._folder, dtype=self._dtype)
        return folder.expanduser() / f"reference-{fingerprint}.sqlite3"
