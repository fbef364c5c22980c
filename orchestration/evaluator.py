"""Measures the student, and once the teacher, on the validation prompts of a run."""

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from configs.evaluation import EvaluationConfig
from configs.sampling import Sampling
from configs.wire import Prompt, Response, Trajectory
from orchestration.prompt_scores import PromptScores, mean_of
from orchestration.quality import exact_match, rouge_l, words
from orchestration.roles import Role


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one evaluation found; ``None`` where it was not asked or cannot be known."""

    rouge_l: float | None = None
    """Sampled at temperature 1, 0 to 100."""
    exact_match: float | None = None
    """Sampled at temperature 1, 0 to 100."""
    greedy_rouge_l: float | None = None
    greedy_exact_match: float | None = None
    reverse_kl_nats: float | None = None
    """Mean over sampled responses of log q(y) - log p(y): KL(q‖p) per response, k1 estimate."""
    reverse_kl_per_token: float | None = None
    """The same sum divided by all sampled tokens."""
    nll_nats: float | None = None
    """Mean negative log-likelihood of the gold responses, per token."""
    response_tokens: float | None = None
    """Mean length of the sampled responses."""
    prompts: tuple[PromptScores, ...] = ()
    """The same of every validation prompt, in their order."""

    @classmethod
    def of(cls, prompts: Sequence[PromptScores]) -> "Scores":
        """Return the means over prompts, each of which has as many sampled responses."""
        names = ("rouge_l", "exact_match", "greedy_rouge_l", "greedy_exact_match")
        divergence = mean_of(prompts, "reverse_kl_nats")
        tokens = mean_of(prompts, "response_tokens")
        return cls(
            **{name: mean_of(prompts, name) for name in names},
            reverse_kl_nats=divergence,
            reverse_kl_per_token=divergence / tokens if tokens and divergence is not None else None,
            response_tokens=tokens,
            prompts=tuple(prompts),
        )

    def with_nll(self, nll_nats: float) -> "Scores":
        """Return the same scores with the gold likelihood filled in."""
        return dataclasses.replace(self, nll_nats=nll_nats)

    def known(self) -> dict[str, float]:
        """Return the means that are known."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "prompts")
        values = {name: getattr(self, name) for name in names}
        return {key: value for key, value in values.items() if value is not None}

    def rounded(self) -> dict[str, float]:
        """Return what is known, for summary.json."""
        return {key: round(value, 4) for key, value in self.known().items()}


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Holds the validation set and knows how responses become text."""

    config: EvaluationConfig
    prompts: Sequence[Prompt]
    tokenizer: Any
    max_new_tokens: int

    async def student(
        self, samplers: Sequence[Role], teacher: Role | None
    ) -> tuple[Scores, list[str]]:
        """Return the student's scores and its greedy texts, in the order of the prompts.

        Without a teacher the reverse KL stays unknown.
        """
        greedy = await self._draw(samplers, self.prompts, self._sampling(0.0))
        sampled = await self._draw(samplers, self._redrawn(), self._sampling(1.0))
        texts = self._texts([trajectory.response for trajectory in greedy])
        gaps = await self._log_ratios(sampled, teacher) if teacher else None
        responses = [trajectory.response for trajectory in sampled]
        return Scores.of(self._by_prompt(responses, texts, gaps)), texts

    async def teacher(self, teacher: Role) -> tuple[Scores, list[str]]:
        """Return the teacher's scores and its greedy texts; its reverse KL to itself is 0."""
        greedy = await teacher.call("generate", list(self.prompts), self._sampling(0.0))
        sampled = await teacher.call("generate", self._redrawn(), self._sampling(1.0))
        texts = self._texts(greedy)
        return Scores.of(self._by_prompt(sampled, texts, [0.0] * len(sampled))), texts

    async def _log_ratios(self, sampled: list[Trajectory], teacher: Role) -> list[float]:
        prompts = [trajectory.prompt for trajectory in sampled]
        drawn = [trajectory.response for trajectory in sampled]
        scored, _ = await teacher.call("score_responses", prompts, drawn)
        return [_log_ratio(response) for response in scored]

    def _sampling(self, temperature: float) -> Sampling:
        return Sampling(temperature=temperature, top_p=1.0, max_new_tokens=self.max_new_tokens)

    def _redrawn(self) -> list[Prompt]:
        """Every prompt ``samples`` times, each with a uid (and so a seed) of its own."""
        return [
            dataclasses.replace(prompt, uid=prompt.uid._replace(sample=sample))
            for sample in range(self.config.samples)
            for prompt in self.prompts
        ]

    async def _draw(
        self, samplers: Sequence[Role], prompts: Sequence[Prompt], sampling: Sampling
    ) -> list[Trajectory]:
        share = math.ceil(len(prompts) / len(samplers))
        parts = [list(prompts[i : i + share]) for i in range(0, len(prompts), share)]
        drawn = await asyncio.gather(
            *(s.call("generate", part, sampling) for s, part in zip(samplers, parts, strict=False))
        )
        return [trajectory for part in drawn for trajectory in part.trajectories]

    def _by_prompt(
        self, sampled: Sequence[Response], greedy: Sequence[str], gaps: Sequence[float] | None
    ) -> list[PromptScores]:
        """Score every prompt; ``sampled`` and ``gaps`` are in the order of ``_redrawn``."""
        texts, count = self._texts(sampled), len(self.prompts)
        return [
            PromptScores(
                row=prompt.row,
                reverse_kl_nats=None if gaps is None else fmean(gaps[index::count]),
                reference_words=self._reference_words(prompt),
                response_tokens=fmean(len(drawn.ids_T) for drawn in sampled[index::count]),
                **self._quality(texts[index::count], greedy[index], prompt.references),
            )
            for index, prompt in enumerate(self.prompts)
        ]

    def _reference_words(self, prompt: Prompt) -> int | None:
        if prompt.gold_ids_T is None:
            return words(prompt.references[0]) if prompt.references else None
        return words(self.tokenizer.decode(prompt.gold_ids_T.tolist(), skip_special_tokens=True))

    def _quality(
        self, sampled: Sequence[str], greedy: str, references: Sequence[str]
    ) -> dict[str, float]:
        if not references:
            return {}  # a prompt alone: nothing to compare texts with
        answer = self.config.answer_pattern
        return {
            "rouge_l": fmean(rouge_l(text, references) for text in sampled),
            "exact_match": fmean(exact_match(text, references, answer) for text in sampled),
            "greedy_rouge_l": rouge_l(greedy, references),
            "greedy_exact_match": exact_match(greedy, references, answer),
        }

    def _texts(self, responses: Sequence[Response]) -> list[str]:
        ids = [response.ids_T.tolist() for response in responses]
        return [self.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in ids]


def _log_ratio(response: Response) -> float:
    assert response.behaviour_logprobs_T is not None and response.teacher_logprobs_T is not None
    return float(response.behaviour_logprobs_T.sum() - response.teacher_logprobs_T.sum())
