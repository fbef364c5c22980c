"""How prompts become tuples: who draws, who answers, who judges, in the order of references.

prompts ──► sampler.generate ──► trajectories ─┐
   │   └──► offline.generate ──► trajectories ─┤
   └──────► teacher.respond  ──► y_t ──────────┴─► teacher.judge ──► tuples
                                                     (─► reference.annotate)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt, Uid
from orchestration.origins import origin_of
from orchestration.roles import Role


class Made(NamedTuple):
    """References to what a maker's parts answer."""

    heads: Any
    """For the queue."""
    batch: Any
    """For the learner, in the order of ``uids``."""
    uids: list[Uid]
    proof: Any
    """What the sampler says of its weights; None: it draws nothing."""


@dataclass(frozen=True, kw_only=True)
class TupleMaker:
    """Submits the calls; their answers stay with the roles."""

    config: RunConfig
    sampler: Role | None
    """None: the objective learns from the teacher's text alone."""
    teacher: Role
    offline: Role | None = None
    reference: Role | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count as a call of both parts, and keep the sampler, until there are tuples."""
        with self.teacher.serving(), (self.sampler or self.teacher).serving():
            yield

    def make(self, prompts: Sequence[Prompt]) -> Made:
        """Have ``prompts`` made into tuples, in their order."""
        origins = [origin_of(prompt.uid, self.config) for prompt in prompts]
        by_origin: dict[str, list[Prompt]] = {"student": [], "offline": [], "teacher": []}
        for prompt, origin in zip(prompts, origins, strict=True):
            by_origin[origin].append(prompt)
        pairs = self.config.objective.sequences == "pair"
        answered = list(prompts) if pairs else by_origin["teacher"]
        answers = self.teacher.submit("respond", answered) if answered else []
        drawn, proof = _draw(self.sampler, by_origin["student"])
        offline, _ = _draw(self.offline, by_origin["offline"])
        return self._judge(prompts, answers, drawn, offline, proof)

    def remake(self, stale: Sequence[PreferenceTuple]) -> Made:
        """Have the tuples made with y_s drawn anew; y_t and log p(y_t) stay."""
        prompts = [pair.prompt for pair in stale]
        answers = [pair.teacher_response for pair in stale if pair.teacher_response is not None]
        drawn, proof = _draw(self.sampler, prompts)
        return self._judge(prompts, answers, drawn, [], proof)

    def _judge(
        self, prompts: Sequence[Prompt], answers: Any, drawn: Any, offline: Any, proof: Any
    ) -> Made:
        judging = (list(prompts), answers, drawn, offline)
        heads, batch = self.teacher.submit("judge", *judging, returns=2)
        if self.reference is not None:
            heads, batch = self.reference.submit("annotate", batch, returns=2)
        return Made(heads, batch, [prompt.uid for prompt in prompts], proof)


def _draw(role: Role | None, prompts: list[Prompt]) -> tuple[Any, Any]:
    """Return references to the two parts of a ``Draw``; nobody is asked for nothing."""
    if not prompts:
        return [], None
    assert role is not None, f"nobody to draw for {len(prompts)} prompts"
    return role.submit("generate", prompts, returns=2)
