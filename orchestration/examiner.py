"""Looks at the student before, during and after a session, and once at the teacher."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.prompts import PromptSource
from configs.run import RunConfig
from orchestration.assembly import Roles
from orchestration.evaluator import Evaluator, Scores
from orchestration.recorder import Recorder
from orchestration.run_folder import RunFolder


class Examiner:
    """Runs evaluations with the roles that there are, and keeps their scores."""

    def __init__(
        self,
        config: RunConfig,
        prompts: PromptSource,
        tokenizer: Any,
        folder: RunFolder,
        recorder: Recorder,
    ) -> None:
        self._config = config.evaluation
        self._reverse_kl = config.evaluates_reverse_kl
        self._folder = folder
        self._recorder = recorder
        self._tokenizer = tokenizer
        self._validation = prompts.validation()
        self._evaluator = Evaluator(
            config=config.evaluation,
            prompts=self._validation,
            tokenizer=tokenizer,
            max_new_tokens=config.evaluation.max_new_tokens
            or config.student.sampling.max_new_tokens,
        )
        self.scores: dict[str, Scores] = {}
        """By occasion: ``before``, ``after``, ``teacher``, ``step-<n>``."""

    async def look(self, when: str, step: int, roles: Roles) -> None:
        """Measure the student; before the run, the teacher too."""
        if not self._validation:
            return
        scores, texts = Scores(), None
        if self._config.generate:
            if when == "before" and self._config.teacher and roles.teachers:
                self._keep("teacher", 0, *await self._evaluator.teacher(roles.teachers[0]))
            judge = roles.teachers[0] if self._reverse_kl else None
            scores, texts = await self._evaluator.student(roles.samplers, judge)
        if all(prompt.gold_ids_T is not None for prompt in self._validation):
            likelihood = await roles.learner.nll(self._validation)
            scores = scores.with_nll(likelihood["nll"])
        self._keep(when, step, scores, texts)

    def state(self) -> dict[str, dict[str, float]]:
        """Return the scores so far, without those of single prompts, as plain JSON."""
        return {when: scores.known() for when, scores in self.scores.items()}

    def restore(self, state: Mapping[str, Mapping[str, float]] | None) -> None:
        """Hold the scores that ``state`` returned; None: nothing but those before the run."""
        if state is None:
            self.scores = {w: s for w, s in self.scores.items() if w in ("before", "teacher")}
        else:
            self.scores = {when: replace(Scores(), **values) for when, values in state.items()}

    def _keep(self, when: str, step: int, scores: Scores, texts: list[str] | None) -> None:
        self.scores[when] = scores
        self._recorder.evaluated(when, step, scores)
        self._folder.scores([prompt.line(when, step) for prompt in scores.prompts])
        if texts:
            self._log_samples(when, step, texts)

    def _log_samples(self, when: str, step: int, texts: list[str]) -> None:
        pairs = list(zip(self._validation, texts, strict=True))[: self._config.logged_samples]
        rows = [
            {
                "when": when,
                "step": step,
                "prompt": self._tokenizer.decode(prompt.prompt_ids_P.tolist()),
                "response": text,
                "references": list(prompt.references),
            }
            for prompt, text in pairs
        ]
        self._recorder.sampled(rows, show=self._config.show_samples)
