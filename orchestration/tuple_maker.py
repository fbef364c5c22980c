"""How prompts become tuples: who draws, who answers, who judges, in the order of references.

prompts ──► sampler.generate ──► trajectories ─┐
   │   └──► offline.generate ──► trajectories ─┤
   └──────► teacher.respond  ──► y_t ──────────┴─► teacher.judge ──► tuples
                                                     (─► reference.annotate)
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt
from orchestration.origins import origin_of
from orchestration.roles import Role


@dataclass(frozen=True, kw_only=True)
class TupleMaker:
    """Submits the calls; their answers stay with the roles."""

    config: RunConfig
    sampler: Role | None
    """None: the objective learns from the teacher's text alone."""
    teacher: Role
    offline: Role | None = None
    reference: Role | None = None

    def at_work(self) -> AbstractContextManager[None]:
        """Keep the sampler from leaving until its answers have become tuples."""
        return self.sampler.serving() if self.sampler else nullcontext()

    def make(self, prompts: Sequence[Prompt]) -> Any:
        """Return a reference to the tuples of ``prompts``, in their order."""
        origins = [origin_of(prompt.uid, self.config) for prompt in prompts]
        by_origin: dict[str, list[Prompt]] = {"student": [], "offline": [], "teacher": []}
        for prompt, origin in zip(prompts, origins, strict=True):
            by_origin[origin].append(prompt)
        pairs = self.config.objective.sequences == "pair"
        answered = list(prompts) if pairs else by_origin["teacher"]
        return self._judge(
            prompts,
            _call(self.teacher, "respond", answered),
            _call(self.sampler, "generate", by_origin["student"]),
            _call(self.offline, "generate", by_origin["offline"]),
        )

    def remake(self, stale: Sequence[PreferenceTuple]) -> Any:
        """Return a reference to the tuples with y_s drawn anew; y_t and log p(y_t) stay."""
        prompts = [pair.prompt for pair in stale]
        answers = [pair.teacher_response for pair in stale if pair.teacher_response is not None]
        return self._judge(prompts, answers, _call(self.sampler, "generate", prompts), [])

    def _judge(self, prompts: Sequence[Prompt], answers: Any, drawn: Any, offline: Any) -> Any:
        tuples = self.teacher.submit("judge", list(prompts), answers, drawn, offline)
        return tuples if self.reference is None else self.reference.submit("annotate", tuples)


def _call(role: Role | None, method: str, prompts: list[Prompt]) -> Any:
    """Return a reference to the answers, or none at once where nobody is asked anything."""
    if not prompts:
        return []
    assert role is not None, f"nobody to {method} {len(prompts)} prompts"
    return role.submit(method, prompts)
