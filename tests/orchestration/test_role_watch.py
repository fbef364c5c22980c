"""What the watch adds up of parts that work, die and come back."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from configs.monitoring import MonitoringConfig
from orchestration.busy_clock import Reading, Span
from orchestration.exporter import MetricsHub
from orchestration.role_watch import RoleWatch
from orchestration.roles import Role

COUNTS = (
    "cache_hits cache_misses generated_tokens scored_tokens answered_tokens judged_tokens"
).split()


class Part(Role):
    """Answers as its clock and its counts say."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 5)
        self.spans: list[Span] = []
        self.counted = 0.0

    def submit(self, method: str, *args: Any, returns: int = 1) -> Any:
        async def answer() -> Any:
            if method == "clock":
                spans, self.spans = self.spans, []
                return Reading(1.0, {"scoring": 0.75}, {"prompts": 0.25}, 0.0, spans)
            return dict.fromkeys(COUNTS, self.counted)

        return asyncio.ensure_future(answer())

    async def stop(self) -> None:
        """Nothing to stop."""


class Watched:
    """A watch over one part of each kind, whose metrics go nowhere but here."""

    def __init__(self) -> None:
        self.sampler, self.teacher, self.learner = map(
            Part, ("sampler-0", "teacher-0", "learner-0")
        )
        self.reference = Part("reference-0")
        self.hub = MetricsHub(MonitoringConfig(port=0))
        self.times: list[dict[str, Any]] = []
        roles = SimpleNamespace(
            samplers=[self.sampler],
            teachers=[self.teacher],
            learner=SimpleNamespace(ranks=[self.learner]),
            offline=None,
            reference=self.reference,
        )
        folder = SimpleNamespace(times=self.times.append)
        self.watch = RoleWatch(self.hub, roles, folder)  # type: ignore[arg-type]

    def value(self, name: str, **labels: str) -> float | None:
        return self.hub._registry.get_sample_value(name, labels)


@pytest.fixture
def watched():
    watched = Watched()
    yield watched
    watched.hub.close()


def test_what_a_dead_teacher_did_was_done(watched):
    async def story() -> None:
        await watched.watch.restart()
        watched.teacher.counted = 100
        await watched.watch.look()
        watched.teacher.life, watched.teacher.counted = 1, 7
        await watched.watch.look()

    asyncio.run(story())
    assert watched.watch.teacher_cache == {"hits": 107, "misses": 107, "hit_rate": 0.5}
    assert watched.watch.teacher_tokens == {"teacher_answered": 107, "teacher_judged": 107}
    assert watched.value("dpkd_tokens_total", role="teacher") == 214
    assert watched.value("dpkd_teacher_cache_hits_total") == 107


def test_every_kind_of_part_has_an_account_and_a_bubble(watched):
    async def story() -> dict[str, Any]:
        await watched.watch.restart()
        await asyncio.sleep(0.01)
        return await watched.watch.look()

    times = asyncio.run(story())
    assert set(times) == {"sampler", "teacher", "learner", "reference"}
    assert times["reference"]["busy"] == {"scoring": 0.75}
    assert watched.times == [times], "it is in the run folder, should the run fail"
    assert watched.value("dpkd_bubble_ratio", role="reference") is not None


def test_histograms_hold_the_calls_that_their_names_say(watched):
    calls = ("generate", "load_weights", "respond", "judge", "judge", "save")
    for part in (watched.sampler, watched.teacher, watched.learner):
        part.spans = [Span(0.0, 0.5, True, "x", method) for method in calls]
        part.spans += [Span(0.0, 0.5, False, "x", "judge")]

    asyncio.run(watched.watch.look())
    counts = {
        key: watched.value(f"dpkd_{key}_seconds_count")
        for key in ("sampling", "answering", "scoring", "checkpoint")
    }
    assert counts == {"sampling": 1, "answering": 1, "scoring": 2, "checkpoint": 0}


def test_before_the_loops_turn_nothing_is_accounted(watched):
    asyncio.run(watched.watch.look())
    assert watched.times == []
    assert watched.value("dpkd_bubble_ratio", role="sampler") is None
