"""The teacher p: its responses y_t, once per prompt, and what it makes of anything it is shown.

    prompts ──respond──► y_t  (cache, else its engine or the data's own response)
    prompts, y_t, trajectories ──judge──► (x, y_t, y_s, ...), what the learner consumes

Of a response it tells what the objective needs and no more: log p(y | x), its likeliest tokens
at every state, a score. y_t depends on the run's seed and the prompt's token ids alone, so the
same prompt has the same y_t in every epoch, for every student sample, and in every batch it
comes in.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.judging import Place, join, places, put_back, with_likeness
from actors.malformed import blamed_on
from actors.scoring import Score, gives_finite
from actors.teacher_backend import open_backend
from actors.teacher_cache import TeacherCache, response_key
from configs.errors import DataError, NonFiniteError
from configs.faults import failpoint
from configs.objective import Need
from configs.packing import pack
from configs.sampling import Sampling
from configs.teacher import AnyTeacherConfig
from configs.wire import Parcel, PreferenceTuple, Prompt, Response, Trajectory


class TeacherServer:
    """Answers prompts and judges responses. Engines start when first needed, or never."""

    def __init__(
        self,
        config: AnyTeacherConfig,
        *,
        model: str | None,
        seed: int,
        cache_folder: Path | None,
        needs: frozenset[Need],
        response: Literal["generate", "gold"],
        tokenizer: Any = None,
        exit_on_engine_death: bool = False,
        start_engine: Callable[[], Any] | None = None,
    ) -> None:
        """Find the model's files, or connect to its server, and open the cache.

        ``model`` is a folder or hub name (None: a server), ``seed`` the run's. ``needs`` are the
        objective's: without log-probabilities or distributions among them nothing is scored.
        ``response`` says where y_t comes from. ``cache_folder`` None, or ``config.cache`` false,
        keeps responses for this run only. ``tokenizer``, the run's, is needed by a server of
        text, and else checked. With ``exit_on_engine_death`` the process ends when vLLM fails,
        so that the run hears of it. Raises DependencyError when the model is incomplete or the
        cache cannot be written, ConfigError for more likeliest tokens than the vocabulary has.
        """
        self._config = config
        self._seed = seed
        self._needs = needs
        self._response = response
        self._tokenizer = tokenizer
        self._backend = open_backend(
            config,
            model=model,
            seed=seed,
            distribution="teacher_distribution" in needs,
            tokenizer=tokenizer,
            exit_on_engine_death=exit_on_engine_death,
            start_engine=start_engine,
        )
        self._limits = self._backend.limits
        self._top_k = self._backend.top_k
        self._scores = self._top_k is not None or "teacher_logprobs" in needs
        self._cache = TeacherCache(self._cache_path(cache_folder))
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()  # neither vLLM nor a count is safe between threads

    def warm_up(self) -> None:
        """Start now whatever the objective would start, so that no batch waits for it.

        Raises ConfigError when the vocabulary is smaller than the tokenizer's, and
        NonFiniteError when the model gives no numbers for a few tokens.
        """
        with self._lock:
            if self._tokenizer is not None:
                self._limits.check_tokenizer(self._tokenizer)
            if self._response == "generate" and "teacher_response" in self._needs:
                self._backend.engine().warm_up()
            if self._scores and not gives_finite(self._backend.scorer(), self._limits):
                raise NonFiniteError(
                    f"teacher {self._backend.name} gives log-probabilities that are not finite; "
                    "check its weights, or serve it in float32"
                )

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        """Return y_t for each prompt.

        ``teacher_logprobs_T`` is set when the objective needs it, and left to ``judge`` when
        that makes a forward of y_t in any case, for the distribution. A value that is not
        finite stays in its place, for the queue to drop, and is not cached. Prompts of the same
        ids share one y_t, or ``config.draws`` of them. Raises DataError for a prompt that has no
        gold response (where y_t is the data's) or does not fit the teacher, and TeacherFailedError
        for those that a served teacher answers with nothing usable.
        """
        failpoint("teacher.respond")
        with self._lock:
            self._limits.check_fit(prompts, [None] * len(prompts))
            if self._response == "gold" and not self._scores_answers:
                return [_gold(prompt) for prompt in prompts]
            keys = [self._key(prompt) for prompt in prompts]
            first_use: dict[bytes, Prompt] = {}
            for key, prompt in zip(keys, prompts, strict=True):
                first_use.setdefault(key, prompt)
            known = self._cache.get(keys)
            drawn = self._draw({k: p for k, p in first_use.items() if k not in known})
            known |= drawn
            scored = self._score_missing(known, first_use)
            known |= scored
            made = drawn | scored
            self._cache.put({k: response for k, response in made.items() if _is_finite(response)})
            self._counts["cache_misses"] += len(made)
            self._counts["cache_hits"] += len(keys) - len(made)
            answers = [known[key] for key in keys]
            if self._response == "generate":
                self._counts["answered_tokens"] += sum(len(answer.ids_T) for answer in answers)
            return answers

    def judge(
        self,
        prompts: list[Prompt],
        answers: list[Response],
        drawn: list[Trajectory],
        offline: Sequence[Trajectory] = (),
    ) -> Parcel:
        """Join prompts with their y_t and y_s, and set what the objective needs of them.

        ``answers`` are ``respond``'s to all prompts, or to those without a trajectory; the
        tuples come in the order of ``prompts``. One forward gives log p(y | x), the likeliest
        tokens at every state and, for a y_s, log p(. | x) with ``first_token_distribution``.
        Values that are not finite stay, for the queue to drop. Raises DataError and
        TeacherFailedError as ``respond`` does.
        """
        failpoint("teacher.judge")
        tuples = join(prompts, answers, [*drawn, *offline])
        with self._lock:
            tuples = self._with_scores(tuples)
        if "response_score" in self._needs:
            tuples = [with_likeness(item) for item in tuples]
        parcel = pack(tuples).parcel()
        failpoint("teacher.judged")
        return parcel

    def score_responses(
        self, prompts: list[Prompt], responses: list[Response], *, first_token: bool = False
    ) -> tuple[list[Response], list[np.ndarray | None]]:
        """Return the responses with ``teacher_logprobs_T`` set, and log p(. | x) if asked.

        The second list holds (V,) float32 arrays, or None for each. Evaluation uses this
        alone, for the reverse KL of samples that have no y_t, whatever the objective needs.
        Raises NonFiniteError, naming the uid, for a log-probability that is none.
        """
        with self._lock:
            scores = self._score(prompts, responses, first_token=first_token)
        for prompt, score in zip(prompts, scores, strict=True):
            _check_finite(prompt, score)
        scored = [
            replace(response, teacher_logprobs_T=score.logprobs_T)
            for response, score in zip(responses, scores, strict=True)
        ]
        return scored, [score.first_token_logprobs_V for score in scores]

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[Response]:
        """Draw a response for each prompt for evaluation: seeded by uid, never cached.

        ``teacher_logprobs_T`` is the engine's own raw log-probability, where it tells it.
        """
        with self._lock:
            self._limits.check_fit(prompts, [None] * len(prompts))
            seeds = [_seed("generate", self._seed, list(prompt.uid)) for prompt in prompts]
            return self._generate(prompts, sampling, seeds)

    def fingerprint(self) -> str:
        """Return what names the model whatever its name is: of its files, or of its server."""
        return self._backend.fingerprint()

    def statistics(self) -> dict[str, float]:
        """Return the counts since start.

        ``cache_hits`` and ``cache_misses`` count prompts; ``generated_tokens`` and
        ``scored_tokens`` the response tokens that were worked on. ``answered_tokens`` are those
        of every y_t that was handed out, cached or not, and ``judged_tokens`` those that
        ``judge`` scored: what an objective costs whatever other runs left in the cache.
        ``cache_corrupt`` counts damaged records or files that were made again,
        ``cache_failures`` reads and writes that the disk refused.
        """
        counts = {name: float(self._counts[name]) for name in _COUNTS}
        return counts | {
            "cache_corrupt": float(self._cache.corrupt),
            "cache_failures": float(self._cache.failures),
        }

    def close(self) -> None:
        """End the engine, free the scorer and close the cache."""
        with self._lock:
            self._backend.close()
            self._cache.close()

    @property
    def _scores_answers(self) -> bool:
        return self._scores and self._top_k is None

    def _draw(self, prompts: dict[bytes, Prompt]) -> dict[bytes, Response]:
        """Make y_t, unscored, for each key's prompt."""
        if self._response == "gold":
            return {key: _gold(prompt) for key, prompt in prompts.items()}
        seeds = [
            _seed("respond", self._seed, prompt.prompt_ids_P.tolist(), *self._turn(prompt))
            for prompt in prompts.values()
        ]
        drawn = self._generate(list(prompts.values()), self._config.sampling, seeds)
        # The engine's log-probabilities are dropped: y_t and y_s are to be scored alike.
        return {
            key: replace(response, teacher_logprobs_T=None)
            for key, response in zip(prompts, drawn, strict=True)
        }

    def _score_missing(
        self, known: dict[bytes, Response], first_use: dict[bytes, Prompt]
    ) -> dict[bytes, Response]:
        """Score what is new, and what another objective's run had cached unscored."""
        if not self._scores_answers:
            return {}
        keys = [key for key in first_use if known[key].teacher_logprobs_T is None]
        scores = self._score([first_use[k] for k in keys], [known[k] for k in keys])
        return {
            key: replace(known[key], teacher_logprobs_T=score.logprobs_T)
            for key, score in zip(keys, scores, strict=True)
        }

    def _generate(
        self, prompts: list[Prompt], sampling: Sampling, seeds: list[int]
    ) -> list[Response]:
        if not prompts:
            return []
        with blamed_on(prompts):
            responses = self._backend.engine().generate(
                [prompt.prompt_ids_P for prompt in prompts], sampling=sampling, seeds=seeds
            )
        self._counts["generated_tokens"] += sum(len(response.ids_T) for response in responses)
        return [
            replace(
                response,
                behaviour_logprobs_T=None,
                teacher_logprobs_T=response.behaviour_logprobs_T,
            )
            for response in responses
        ]

    def _with_scores(self, tuples: list[PreferenceTuple]) -> list[PreferenceTuple]:
        """Score the responses that lack what the objective needs."""
        unscored = [place for place in places(tuples) if self._lacks(place.response)]
        self._counts["judged_tokens"] += sum(len(place.response.ids_T) for place in unscored)
        drawn = any(place.side == "student_response" for place in unscored)
        scores = self._score(
            [place.prompt for place in unscored],
            [place.response for place in unscored],
            first_token=drawn and self._config.first_token_distribution,
            top_k=self._top_k,
        )
        scored = list(zip(unscored, scores, strict=True))
        firsts = {
            place.index: score.first_token_logprobs_V
            for place, score in scored
            if place.side == "student_response"
        }
        known = put_back(tuples, [(place, _known(place, score)) for place, score in scored])
        return [
            replace(item, teacher_first_token_logprobs_V=firsts.get(index))
            for index, item in enumerate(known)
        ]

    def _lacks(self, response: Response) -> bool:
        if self._top_k is not None:
            return response.teacher_top_ids_TK is None
        return self._scores and response.teacher_logprobs_T is None

    def _score(
        self,
        prompts: list[Prompt],
        responses: list[Response],
        *,
        first_token: bool = False,
        top_k: int | None = None,
    ) -> list[Score]:
        if not prompts:
            return []
        self._limits.check_fit(prompts, responses)
        self._counts["scored_tokens"] += sum(len(response.ids_T) for response in responses)
        with blamed_on(prompts):
            return self._backend.scorer().score(
                [prompt.prompt_ids_P for prompt in prompts],
                [response.ids_T for response in responses],
                first_token=first_token,
                top_k=top_k,
            )

    def _cache_path(self, folder: Path | None) -> Path | None:
        if folder is None or not self._config.cache:
            return None
        return folder.expanduser() / f"teacher-{self._backend.fingerprint()}.sqlite3"

    def _key(self, prompt: Prompt) -> bytes:
        recipe = {"response": self._response, **self._backend.recipe}
        if self._response == "gold":
            return response_key(recipe, prompt.prompt_ids_P, _gold(prompt).ids_T)
        recipe |= {
            "sampling": self._config.sampling.model_dump(),
            "context": self._limits.context,
            # A greedy response is the same for every seed, so runs may share it.
            "seed": self._seed if self._config.sampling.temperature > 0 else None,
        }
        if turn := self._turn(prompt):
            recipe["draw"] = turn[0]
        return response_key(recipe, prompt.prompt_ids_P)

    def _turn(self, prompt: Prompt) -> tuple[int, ...]:
        """Name which of several draws a use of a prompt has; nothing for the first."""
        turn = (prompt.row + prompt.uid.epoch) % self._config.draws
        return (turn,) if turn and self._config.sampling.temperature > 0 else ()


_COUNTS = (
    "cache_hits",
    "cache_misses",
    "generated_tokens",
    "scored_tokens",
    "answered_tokens",
    "judged_tokens",
)


def _gold(prompt: Prompt) -> Response:
    if prompt.gold_ids_T is None:
        raise DataError(
            f"row {prompt.row} has no gold response, which teacher.response=gold and objectives "
            "on dataset states need; mend the row, or have the teacher respond"
        )
    return Response(ids_T=prompt.gold_ids_T, finish_reason="stop")


def _known(place: Place, score: Score) -> Response:
    return replace(
        place.response,
        teacher_logprobs_T=score.logprobs_T,
        teacher_top_ids_TK=score.top_ids_TK,
        teacher_top_logprobs_TK=score.top_logprobs_TK,
    )


def _seed(use: str, run_seed: int, ids: list[int], *turn: int) -> int:
    """Return a 63-bit seed that is a function of its arguments alone."""
    text = json.dumps([use, run_seed, ids, *turn]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def _is_finite(response: Response) -> bool:
    logprobs_T = response.teacher_logprobs_T
    return logprobs_T is None or bool(np.isfinite(logprobs_T).all())


def _check_finite(prompt: Prompt, score: Score) -> None:
    first_V = score.first_token_logprobs_V
    values = [score.logprobs_T, *([] if first_V is None else [first_V])]
    if not all(np.isfinite(array).all() for array in values):
        raise NonFiniteError(
            f"the teacher's log-probabilities for {prompt.uid} (row {prompt.row}) are not finite; "
            "check its weights, or serve it in float32"
        )
