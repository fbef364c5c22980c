"""Evaluation over roles with known answers: every score is worked out by hand."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from configs.evaluation import EvaluationConfig
from configs.sampling import Sampling
from configs.wire import Draw, Prompt, Response, Trajectory
from orchestration.evaluator import Evaluator
from orchestration.local import LocalRole
from orchestration.prompt_scores import PromptScores, read_scores
from tests.builders import prompt, response

WORDS = {4: "four", 5: "five", 8: "gold", 2: ""}


class Words:
    """A tokenizer of four words."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(WORDS[token] for token in ids)


class Sampler:
    """Greedy says "four five", a sample says "four"; log q is -1 a token."""

    def __init__(self) -> None:
        self.uids: list[Any] = []

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> Draw:
        self.uids += [p.uid for p in prompts]
        ids = (4, 5, 2) if sampling.temperature == 0 else (4, 2)
        drawn = response(*ids, behaviour=-1.0)
        drawn_by_prompt = [Trajectory(prompt=p, response=drawn, weight_version=0) for p in prompts]
        return Draw(drawn_by_prompt, None)


class Teacher:
    """log p is -1.5 a token."""

    def score_responses(
        self, prompts: list[Prompt], responses: list[Response]
    ) -> tuple[list[Response], list[None]]:
        scored = [
            replace(r, teacher_logprobs_T=1.5 * r.behaviour_logprobs_T)  # type: ignore[operator]
            for r in responses
        ]
        return scored, [None] * len(prompts)


def _student(prompts: list[Prompt], *, samples: int = 2, replicas: int = 1, teacher: bool = True):
    evaluator = Evaluator(
        config=EvaluationConfig(samples=samples),
        prompts=prompts,
        tokenizer=Words(),
        max_new_tokens=8,
    )
    parts = [Sampler() for _ in range(replicas)]

    thread = ThreadPoolExecutor(1)

    async def story():
        samplers = [
            LocalRole(f"sampler-{i}", lambda p=p: p, thread=thread, timeout=5)
            for i, p in enumerate(parts)
        ]
        judge = LocalRole("teacher-0", Teacher, thread=thread, timeout=5)
        await asyncio.gather(*(role.call("build") for role in (*samplers, judge)))
        return await evaluator.student(samplers, judge if teacher else None)

    return *asyncio.run(story()), parts


def _prompts(*references: str) -> list[Prompt]:
    return [replace(prompt(i), references=(text,)) for i, text in enumerate(references)]


def test_scores_are_means_over_prompts_and_samples():
    scores, texts, _ = _student(_prompts("four five", "four"))
    assert texts == ["four five", "four five"]
    # Sampled "four": against "four five" precision 1, recall 1/2, F 2/3; against "four" 1.
    assert scores.rouge_l == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert scores.exact_match == 50.0
    assert scores.greedy_exact_match == 50.0
    assert scores.response_tokens == 2.0


def test_reverse_kl_is_the_mean_log_ratio_per_response_and_per_token():
    scores, _, _ = _student(_prompts("four", "five"))
    assert scores.reverse_kl_nats == pytest.approx(1.0)  # two tokens of -1 - (-1.5)
    assert scores.reverse_kl_per_token == pytest.approx(0.5)


def test_without_a_teacher_the_reverse_kl_stays_unknown():
    scores, _, _ = _student(_prompts("four"), teacher=False)
    assert scores.reverse_kl_nats is None
    assert "reverse_kl_nats" not in scores.rounded()


def test_every_sample_has_a_uid_of_its_own_and_replicas_share_the_prompts():
    _, _, parts = _student(_prompts("four", "five", "four"), samples=2, replicas=2)
    sampled = [uid for part in parts for uid in part.uids]
    assert len(sampled) == 9  # three greedy, six sampled
    assert all(part.uids for part in parts)
    assert {uid.sample for uid in sampled} == {0, 1}


def test_prompts_without_references_get_no_text_scores():
    scores, _, _ = _student([replace(prompt(0), references=())])
    assert scores.rouge_l is None
    assert scores.reverse_kl_nats == pytest.approx(1.0)


def test_every_prompt_keeps_the_means_over_its_own_samples():
    scores, _, _ = _student(_prompts("four five", "four"), samples=3)
    first, second = scores.prompts
    assert (first.row, second.row) == (0, 1)
    assert first.rouge_l == pytest.approx(100 * 2 / 3)
    assert (first.exact_match, first.greedy_exact_match) == (0.0, 100.0)
    assert second.rouge_l == 100.0
    assert first.reverse_kl_nats == pytest.approx(1.0)
    assert first.response_tokens == 2.0


def test_reference_words_are_the_gold_responses_else_the_first_references():
    answered, bare = prompt(0), replace(prompt(1), gold_ids_T=None, references=("a b c", "d"))
    scores, _, _ = _student([answered, bare])
    assert [row.reference_words for row in scores.prompts] == [1, 3]


def test_a_prompts_line_says_when_and_has_null_for_what_is_not_finite():
    line = PromptScores(row=3, rouge_l=33.33333, reverse_kl_nats=float("inf")).line("after", 7)
    assert (line["when"], line["step"], line["row"]) == ("after", 7, 3)
    assert (line["rouge_l"], line["reverse_kl_nats"], line["exact_match"]) == (33.3333, None, None)


def test_prompt_scores_are_read_back_by_occasion(tmp_path):
    rows = [PromptScores(row=row, rouge_l=50.0, reference_words=4) for row in (1, 2)]
    (tmp_path / "scores.jsonl").write_text(
        "".join(
            json.dumps(row.line(when, 0)) + "\n" for when in ("before", "after") for row in rows
        )
    )
    assert read_scores(tmp_path) == {"before": rows, "after": rows}


def test_a_run_that_drew_nothing_has_no_prompt_scores(tmp_path):
    assert read_scores(tmp_path) == {}
