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
from orchestration.quality import exact_match, rouge_l
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

    def with_nll(self, nll_nats: float) -> "Scores":
        """Return the same scores with the gold likelihood filled in."""
        return dataclasses.replace(self, nll_nats=nll_nats)

    def rounded(self) -> dict[str, float]:
        """Return what is known, for summary.json."""
        known = dataclasses.asdict(self)
        return {key: round(value, 4) for key, value in known.items() if value is not None}


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
        scores = self._quality([trajectory.response for trajectory in sampled], texts)
        return (await self._with_divergence(scores, sampled, teacher) if teacher else scores), texts

    async def teacher(self, teacher: Role) -> tuple[Scores, list[str]]:
        """Return the teacher's scores and its greedy texts; its reverse KL to itself is 0."""
        greedy = await teacher.call("generate", list(self.prompts), self._sampling(0.0))
        sampled = await teacher.call("generate", self._redrawn(), self._sampling(1.0))
        texts = self._texts(greedy)
        scores = self._quality(sampled, texts)
        return dataclasses.replace(scores, reverse_kl_nats=0.0, reverse_kl_per_token=0.0), texts

    async def _with_divergence(
        self, scores: Scores, sampled: list[Trajectory], teacher: Role
    ) -> Scores:
        prompts = [trajectory.prompt for trajectory in sampled]
        drawn = [trajectory.response for trajectory in sampled]
        scored, _ = await teacher.call("score_responses", prompts, drawn)
        gaps = [_log_ratio(response) for response in scored]
        tokens = sum(len(trajectory.response.ids_T) for trajectory in sampled)
        return dataclasses.replace(
            scores, reverse_kl_nats=fmean(gaps), reverse_kl_per_token=sum(gaps) / tokens
        )

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
        return [trajectory for part in drawn for trajectory in part]

    def _quality(self, sampled: Sequence[Response], greedy: Sequence[str]) -> Scores:
        tokens = fmean(len(response.ids_T) for response in sampled)
        references = [prompt.references for prompt in self.prompts]
        if not all(references):
            return Scores(response_tokens=tokens)  # prompts alone: nothing to compare texts with
        pairs = list(zip(self._texts(sampled), references * self.config.samples, strict=True))
        best = list(zip(greedy, references, strict=True))
        return Scores(
            rouge_l=fmean(rouge_l(text, known) for text, known in pairs),
            exact_match=fmean(exact_match(text, known) for text, known in pairs),
            greedy_rouge_l=fmean(rouge_l(text, known) for text, known in best),
            greedy_exact_match=fmean(exact_match(text, known) for text, known in best),
            response_tokens=tokens,
        )

    def _texts(self, responses: Sequence[Response]) -> list[str]:
        ids = [response.ids_T.tolist() for response in responses]
        return [self.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in ids]


def _log_ratio(response: Response) -> float:
    assert response.behaviour_logprobs_T is not None and response.teacher_logprobs_T is not None
    return float(response.behaviour_logprobs_T.sum() - response.teacher_logprobs_T.sum())
