"""What follows a step: weights that travel beside the next one, slots, records, errors."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from configs.errors import WeightSyncError
from configs.wire import Draw, Prompt, TupleHead, WeightProbe, WeightProof, WeightReceipt
from orchestration import weight_sync
from orchestration.learner_group import LearnerGroup
from orchestration.replay import PutResult, ReplayQueue
from orchestration.roles import AnswerLost, RoleDied
from orchestration.weight_sync import WeightSync
from tests.orchestration.fake_parts import FakeLearner, FakeSampler
from tests.orchestration.test_pipeline import Rig, _role

LOAD_SECONDS = 0.15


class SlowSampler(FakeSampler):
    """Takes its time to load, and notes when; its ``fails_load``-th load raises ``failure``."""

    def __init__(self, *, failure: Exception | None = None, fails_load: int = 0) -> None:
        super().__init__()
        self.failure, self.fails_load = failure, fails_load
        self.loads: list[tuple[float, float]] = []

    def go_back(self, *push: Any) -> WeightReceipt:
        began = time.monotonic()
        time.sleep(LOAD_SECONDS)
        self.loads.append((began, time.monotonic()))
        if self.failure and len(self.loads) == self.fails_load:
            raise self.failure
        return super().go_back(*push)


class WatchedLearner(FakeLearner):
    """Notes when it learns, and when weights are asked of it."""

    def __init__(self, seconds: float = 0.05) -> None:
        super().__init__(seconds=seconds)
        self.learned: list[tuple[float, float]] = []
        self.published: list[int] = []

    def forward_backward(self, *batch: Any) -> dict[str, float]:
        began = time.monotonic()
        statistics = super().forward_backward(*batch)
        self.learned.append((began, time.monotonic()))
        return statistics

    def publish_weights(self, lend: bool = False, shards: int = 1) -> Any:
        self.published.append(self.step)
        return super().publish_weights(lend, shards)


def run(tmp_path: Path, sampler: FakeSampler, learner: FakeLearner, **how: Any) -> Rig:
    rig = Rig(tmp_path, samplers=[sampler], learner=learner, **how)
    asyncio.run(rig.run())
    return rig


def overlaps(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> int:
    return sum(a < d and c < b for a, b in some for c, d in others)


def test_weights_travel_beside_the_next_step_where_sampling_may_be_ahead(tmp_path: Path):
    sampler, learner = SlowSampler(), WatchedLearner()
    rig = run(tmp_path, sampler, learner, steps=6, lag=2)
    assert overlaps(sampler.loads, learner.learned) > 0
    assert rig.recorder.steps == [1, 2, 3, 4, 5, 6]
    assert rig.recorder.pushed == [1, 2, 3, 4, 5, 6]
    assert sampler.pushes == [0, 1, 2, 3, 4, 5, 6], "one after the other, each version once"
    assert max(rig.recorder.lags) <= 2


def test_in_lockstep_they_do_not(tmp_path: Path):
    sampler, learner = SlowSampler(), WatchedLearner()
    rig = run(tmp_path, sampler, learner, steps=3, lag=0)
    assert overlaps(sampler.loads, learner.learned) == 0
    assert set(rig.recorder.lags) == {0}


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_load_that_fails_beside_a_step_ends_the_run_and_every_step_is_recorded(tmp_path, lag):
    failure = WeightSyncError("a layer holds other weights")
    sampler, learner = SlowSampler(failure=failure, fails_load=3), WatchedLearner(0.01)
    rig = Rig(tmp_path, samplers=[sampler], learner=learner, steps=50, lag=lag)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert isinstance(caught.value.exceptions[0], WeightSyncError)
    assert len(caught.value.exceptions) <= 2, "whoever waited hears the same error"
    steps = len(rig.noted("consumed"))
    assert rig.recorder.steps == list(range(1, steps + 1))
    assert rig.recorder.pushed[:1] == [1] and set(rig.recorder.pushed[1:]) == {None}


def test_weights_that_were_lost_on_their_way_are_published_anew_between_two_steps(tmp_path: Path):
    sampler = SlowSampler(failure=AnswerLost("its machine is gone"), fails_load=3)
    learner = WatchedLearner(0.2)
    rig = Rig(tmp_path, samplers=[sampler], learner=learner, steps=5, lag=1)
    rig.supervisor.mend = lambda death: None
    asyncio.run(rig.run())
    assert len(learner.published) == 1 + 5 + 1
    assert rig.recorder.steps == [1, 2, 3, 4, 5]
    pushed = [version for version in rig.recorder.pushed if version is not None]
    assert len(pushed) == 5 and pushed == sorted(pushed), "never an older version"
    assert rig.recorder.pushed[-1] == 5
    assert max(rig.recorder.lags) <= 1


def test_a_sampler_that_dies_of_a_load_is_given_the_same_weights_again(tmp_path: Path):
    death = RoleDied("sampler-0 died", role="sampler-0", life=0)
    sampler, learner = SlowSampler(failure=death, fails_load=3), WatchedLearner()
    rig = Rig(tmp_path, samplers=[sampler], learner=learner, steps=4, lag=1)
    rig.supervisor.mend = lambda death: None
    asyncio.run(rig.run())
    assert rig.supervisor.deaths == ["sampler-0"]
    assert learner.published == [0, 1, 2, 3, 4]
    assert sampler.pushes == [0, 1, 2, 3, 4]


def test_a_checkpoint_and_an_evaluation_find_the_step_handed_over(tmp_path: Path):
    sampler, learner = SlowSampler(), WatchedLearner(0.01)
    rig = Rig(
        tmp_path,
        samplers=[sampler],
        learner=learner,
        steps=6,
        lag=2,
        checkpoint={"every": 2},
        evaluation={"every": 2},
    )
    seen: list[tuple[int, list[int]]] = []

    async def keep(step: int) -> None:
        seen.append((step, list(rig.recorder.steps)))

    rig._keep = keep  # type: ignore[method-assign]
    asyncio.run(rig.run())
    assert seen == [(2, [1, 2]), (4, [1, 2, 3, 4])]
    assert rig.evaluated == [(2, 2), (4, 4)]


class DriftingSampler(FakeSampler):
    """Holds other weights than the learner from version ``wrong`` on."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong = wrong

    def go_back(self, *push: Any) -> WeightReceipt:
        receipt = super().go_back(*push)
        self.logprob = -0.5 * (self.version >= self.wrong)
        return receipt


@pytest.mark.parametrize("lag", [0, 2])
def test_nothing_is_learned_from_what_other_weights_drew(tmp_path: Path, lag: int):
    rig = Rig(tmp_path, samplers=[DriftingSampler(wrong=3)], steps=20, lag=lag)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    (error,) = caught.value.exceptions
    assert isinstance(error, WeightSyncError)
    assert "version 3 is not proved: sampler-0 and the learner differ by 0.5" in str(error)
    learned = {pair.weight_version for batch in rig.learner.batches for pair in batch}
    assert learned and learned <= {0, 1, 2}


@pytest.mark.parametrize("lag", [0, 1])
def test_every_version_that_draws_is_proved_once_and_so_is_the_last(tmp_path: Path, lag: int):
    sampler = FakeSampler()
    rig = run(tmp_path, sampler, FakeLearner(), steps=5, lag=lag)
    drew = {pair.weight_version for batch in rig.learner.batches for pair in batch}
    assert drew | {5} <= set(sampler.proved), "what drew is proved, and what is left in the end"
    assert len(sampler.proved) == len(set(sampler.proved))
    summary = rig.sync.summary()
    assert summary["verified"] is True and summary["count"] == 6
    assert summary["proved"] == len(sampler.proved)
    assert not rig.sync._unproved


def test_weights_that_were_not_drawn_with_are_proved_before_an_evaluation(tmp_path: Path):
    sampler = FakeSampler()
    rig = Rig(tmp_path, samplers=[sampler], steps=3, evaluation={"every": 1})
    proved: list[list[int]] = []

    async def evaluate(step: int) -> None:
        proved.append(list(sampler.proved))

    rig._evaluate = evaluate  # type: ignore[method-assign]
    asyncio.run(rig.run())
    assert [versions[-1] for versions in proved] == [1, 2]


class SlowToSay(FakeLearner):
    """Takes its time to say what a sampler must say; notes when it has."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[int, float] = {}

    def probe(self, published: object = None) -> WeightProbe:
        assert published is not None, "it must come behind publish_weights, and Ray keeps no order"
        time.sleep(0.1)
        self.said[self.step] = time.monotonic()
        return super().probe(published)


class WatchedQueue(ReplayQueue):
    """Notes when tuples of each version came first."""

    came: ClassVar[dict[int | None, float]] = {}

    async def put(self, tuples: Sequence[TupleHead]) -> PutResult:
        for pair in tuples:
            self.came.setdefault(pair.weight_version, time.monotonic())
        return await super().put(tuples)


@pytest.mark.parametrize("lag", [0, 2])
def test_nothing_is_queued_before_its_weights_are_proved(tmp_path: Path, lag: int):
    learner = SlowToSay()
    WatchedQueue.came.clear()
    run(tmp_path, FakeSampler(), learner, steps=4, lag=lag, queue=WatchedQueue)
    assert len(WatchedQueue.came) > 1
    for version, came in WatchedQueue.came.items():
        assert version is not None and came > learner.said[version]


def test_the_learner_goes_on_when_it_has_said_what_is_to_be_proved():
    async def scenario() -> None:
        learner, sampler = SlowToSay(), FakeSampler()
        sync, _ = await synced(learner, sampler)
        sync.publish()
        await sync.laid_out()
        assert 0 in learner.said

    asyncio.run(scenario())


async def synced(learner: FakeLearner, *samplers: FakeSampler) -> tuple[WeightSync, LearnerGroup]:
    roles = [_role(f"sampler-{index}", sampler) for index, sampler in enumerate(samplers)]
    group = LearnerGroup([_role("learner-0", learner)])
    await asyncio.gather(*(role.call("build") for role in (*roles, *group.ranks)))
    return WeightSync(group, roles), group


def test_a_newcomer_with_other_weights_does_not_draw(tmp_path: Path):
    rig = Rig(tmp_path, steps=6, lag=1)
    newcomer = rig.joins[2] = DriftingSampler(wrong=0)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert isinstance(caught.value.exceptions[0], WeightSyncError)
    assert newcomer.drawn == 0


class LyingSampler(FakeSampler):
    """Draws with other weights in its ``lies_at``-th call, the redraw of a stale one."""

    def __init__(self, *, stale_at: int, lies_at: int) -> None:
        super().__init__(stale_at=stale_at)
        self.lies_at = lies_at

    def generate(self, prompts: list[Prompt], sampling: Any = None) -> Draw:
        self.logprob = -0.5 * (self.calls + 1 == self.lies_at)
        return super().generate(prompts, sampling)


def test_what_is_drawn_again_is_proved_too(tmp_path: Path):
    sampler = LyingSampler(stale_at=3, lies_at=4)
    rig = Rig(tmp_path, samplers=[sampler], steps=9)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert isinstance(caught.value.exceptions[0], WeightSyncError)
    assert sampler.calls == 4 and rig.learner.step == 2


def test_who_says_nothing_of_its_weights_proves_nothing():
    async def scenario() -> None:
        sampler = FakeSampler()
        sync, _ = await synced(FakeLearner(), sampler)
        sync.publish()
        await sync.load()
        sampler.pushes.clear()
        with pytest.raises(WeightSyncError, match="sampler-0 says nothing of the weights"):
            await sync.prove()

    asyncio.run(scenario())


def test_a_snapshot_comes_back_after_evaluations_of_which_one_was_cut_off():
    async def scenario() -> None:
        learner, sampler = FakeLearner(), FakeSampler()
        sync, group = await synced(learner, sampler)
        learner.step = group.step = 5
        await sync.push()
        learner.step = group.step = 7
        with pytest.raises(RoleDied):
            async with sync.newest(bring_back=True):
                assert sampler.version == 7
                raise RoleDied("queue died", role="queue", life=0)
        learner.step = group.step = 9
        async with sync.newest(bring_back=True):
            assert sampler.version == 9
        assert sampler.version == 5
        await sync.prove()
        assert sync.summary()["proved"] == 4

    asyncio.run(scenario())


def test_what_samplers_held_comes_back_where_the_evaluation_is_not_tried_again():
    async def scenario() -> None:
        learner, sampler = FakeLearner(), FakeSampler()
        sync, group = await synced(learner, sampler)
        await sync.push()
        learner.step = group.step = 3
        with pytest.raises(RoleDied):
            async with sync.newest(bring_back=True):
                raise RoleDied("queue died", role="queue", life=0)
        await sync.bring_back()
        assert sampler.version == 0
        await sync.push()
        await sync.bring_back()
        assert sampler.version == 3, "a push is newer than what was held before"

    asyncio.run(scenario())


def test_what_nobody_can_hold_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weight_sync, "_PROBES_KEPT", 3)

    async def scenario() -> None:
        learner, sampler = FakeLearner(), FakeSampler()
        sync, group = await synced(learner, sampler)
        for step in range(9):
            learner.step = group.step = step
            sync.publish()
            await sync.load()
        assert 3 <= len(sync._probes) <= 5 and max(sync._probes) == 8
        assert sync._due <= set(sync._probes)
        old = WeightProof(version=1, checksum="", logprobs=np.zeros(1, np.float32))
        with pytest.raises(WeightSyncError, match="version 1, which the learner never published"):
            await sync.check(sync._samplers[0], old)

    asyncio.run(scenario())
