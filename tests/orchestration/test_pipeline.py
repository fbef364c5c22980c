"""The loops, over parts without models: order, lag, balance, errors, stopping."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.errors import NonFiniteError, WeightSyncError
from configs.run import RunConfig
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger, read_events
from orchestration.local import LocalRole
from orchestration.pipeline import Parts, Pipeline
from orchestration.replay import ReplayQueue
from orchestration.slots import Slots
from orchestration.weight_sync import WeightSync
from tests.orchestration.fake_parts import (
    DeafSampler,
    FakeLearner,
    FakePrompts,
    FakeRecorder,
    FakeReference,
    FakeSampler,
    FakeSupervisor,
    FakeTeacher,
)


class Rig:
    """A pipeline over fake parts, and what is worth looking at afterwards."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int = 5,
        lag: int = 0,
        samplers: Sequence[FakeSampler] = (),
        learner: FakeLearner | None = None,
        teacher: FakeTeacher | None = None,
        second_teacher: FakeTeacher | None = None,
        **sections: object,
    ) -> None:
        self.config = RunConfig.model_validate(
            {
                "student": {"model": "s", "batch_size": 4},
                "teacher": {"model": "t"},
                "learner": {"steps": steps, "batch_size": 4},
                "replay": {"max_policy_lag": lag, "max_dropped": 3},
                **sections,
            }
        )
        self.samplers = list(samplers) or [FakeSampler()]
        self.offline = FakeSampler()
        self.teacher = teacher or FakeTeacher()
        self.teachers = [self.teacher, *([second_teacher] if second_teacher else [])]
        self.learner = learner or FakeLearner()
        self.recorder = FakeRecorder()
        self.ledger = Ledger(folder / "events.jsonl")
        self.supervisor = FakeSupervisor()
        self.start = 0
        self.kept: list[int] = []
        """Steps after which a checkpoint was asked for."""
        self.evaluated: list[tuple[int, int]] = []
        """Step of each evaluation, and the version that the sampler then held."""

    async def run(self, *, stop_after: int | None = None) -> Pipeline:
        roles = [_role(f"sampler-{i}", part) for i, part in enumerate(self.samplers)]
        teachers = [_role(f"teacher-{i}", part) for i, part in enumerate(self.teachers)]
        queue = _role("queue", self._queue())
        offline, reference = _role("offline-0", self.offline), _role("reference-0", FakeReference())
        group = LearnerGroup([_role("learner-0", self.learner)])
        every = [*roles, *teachers, queue, offline, reference, *group.ranks]
        await asyncio.gather(*(role.call("build") for role in every))
        sync = WeightSync(group, roles)
        parts = Parts(
            prompts=FakePrompts(),  # type: ignore[arg-type]
            samplers=roles,
            teachers=teachers,
            offline=offline,
            reference=reference if "reference_logprobs" in self.config.objective.needs else None,
            queue=queue,
            learner=group,
            sync=sync,
            ledger=self.ledger,
            recorder=self.recorder,  # type: ignore[arg-type]
            supervisor=self.supervisor,  # type: ignore[arg-type]
        )
        pipeline = Pipeline(
            self.config,
            parts,
            evaluate=self._evaluate,
            keep=self._keep,
            step=self.start,
            unfinished=self.ledger.in_flight,
        )
        if stop_after:
            self.recorder.stepped = _stopping(self.recorder, pipeline, stop_after)  # type: ignore[method-assign]
        try:
            await sync.push()
            await asyncio.wait_for(pipeline.run(), 20)
        finally:
            self.ledger.close()
            await asyncio.gather(*(role.stop() for role in every))
        return pipeline

    def _queue(self) -> ReplayQueue:
        bound = {"max_policy_lag": self.config.lag_bound}
        return ReplayQueue(self.config.replay.model_copy(update=bound))

    async def _keep(self, step: int) -> None:
        self.kept.append(step)

    async def _evaluate(self, step: int) -> None:
        self.evaluated.append((step, self.samplers[0].version))


def _role(name: str, part: object) -> LocalRole:
    # A thread each: parts work side by side here, as Ray actors do.
    return LocalRole(name, lambda: part, thread=ThreadPoolExecutor(1), timeout=10)


def _stopping(recorder: FakeRecorder, pipeline: Pipeline, after: int):
    original = recorder.stepped

    def stepped(step: int, *rest: object) -> None:
        original(step, *rest)  # type: ignore[arg-type]
        if step == after:
            pipeline.stop()

    return stepped


def test_lockstep_learns_from_every_prompt_once_in_order_with_the_weights_that_drew_it(tmp_path):
    rig = Rig(tmp_path, steps=5)
    asyncio.run(rig.run())
    learned = [pair.uid.ordinal for batch in rig.learner.batches for pair in batch]
    assert learned == list(range(20))
    versions = [{pair.weight_version for pair in batch} for batch in rig.learner.batches]
    assert versions == [{0}, {1}, {2}, {3}, {4}]
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.in_flight) == (20, 20, 0)


def test_lockstep_holds_with_several_samplers_that_share_a_batch(tmp_path):
    rig = Rig(tmp_path, steps=4, samplers=[FakeSampler(), FakeSampler(seconds=0.02)])
    asyncio.run(rig.run())
    assert rig.recorder.lags == [0] * 16
    assert all(sampler.calls >= 4 for sampler in rig.samplers)


def test_overlap_uses_the_lag_it_is_allowed_and_no_more(tmp_path):
    rig = Rig(tmp_path, steps=8, lag=2, learner=FakeLearner(seconds=0.03))
    asyncio.run(rig.run())
    assert max(rig.recorder.lags) == 2
    assert rig.ledger.balance().in_flight == 0


def test_sft_learns_from_gold_responses_without_sampler_or_teacher(tmp_path):
    rig = Rig(tmp_path, steps=3, objective={"type": "sft"}, samplers=[FakeSampler(fails_at=1)])
    asyncio.run(rig.run())
    assert [pair.student_response for pair in rig.learner.batches[0]] == [None] * 4
    assert rig.samplers[0].calls == 0


def test_an_error_of_a_sampler_ends_the_run_with_that_error(tmp_path):
    rig = Rig(tmp_path, samplers=[FakeSampler(fails_at=3)])
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert "the sampler broke" in str(caught.value.exceptions[0])
    assert len(rig.learner.batches) == 2


def test_a_sampler_that_keeps_old_weights_ends_the_run(tmp_path):
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(Rig(tmp_path, samplers=[DeafSampler()]).run())
    assert isinstance(caught.value.exceptions[0], WeightSyncError)


def test_a_pair_that_is_too_old_is_drawn_again_and_learned_from_once(tmp_path):
    rig = Rig(tmp_path, steps=3, samplers=[FakeSampler(stale_at=2)])
    asyncio.run(rig.run())
    assert rig.samplers[0].calls == 4
    assert [pair.uid.ordinal for batch in rig.learner.batches for pair in batch] == list(range(12))
    assert rig.recorder.lags == [0] * 12
    assert [e["event"] for e in read_events(tmp_path / "events.jsonl")].count("redrawn") == 1
    assert rig.ledger.balance().in_flight == 0


def test_stop_finishes_the_step_under_way(tmp_path):
    rig = Rig(tmp_path, steps=50)
    pipeline = asyncio.run(rig.run(stop_after=2))
    assert (pipeline.step, rig.learner.step) == (2, 2)
    assert rig.ledger.balance().consumed == 8
    assert rig.ledger.balance().in_flight == 0


def test_a_tuple_that_is_not_finite_is_dropped_counted_and_replaced(tmp_path):
    rig = Rig(tmp_path, steps=3, teacher=FakeTeacher(fails_on=[1, 6]))
    asyncio.run(rig.run())
    learned = [pair.uid.ordinal for batch in rig.learner.batches for pair in batch]
    assert learned == [0, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.dropped) == (14, 12, {"nonfinite": 2})


def test_a_teacher_that_is_wrong_again_and_again_ends_the_run(tmp_path):
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(Rig(tmp_path, steps=9, teacher=FakeTeacher(fails_on=range(2, 40))).run())
    assert isinstance(caught.value.exceptions[0], NonFiniteError)
    assert "replay.max_dropped (3)" in str(caught.value.exceptions[0])


def test_a_snapshot_draws_until_it_is_renewed(tmp_path):
    rig = Rig(tmp_path, steps=6, negatives={"type": "snapshot", "every": 3})
    asyncio.run(rig.run())
    assert rig.samplers[0].pushes == [0, 3, 6]
    versions = [{pair.weight_version for pair in batch} for batch in rig.learner.batches]
    assert versions == [{0}, {0}, {0}, {3}, {3}, {3}]


def test_initial_negatives_are_never_renewed_but_evaluation_sees_the_newest_weights(tmp_path):
    rig = Rig(tmp_path, steps=5, negatives={"type": "initial"}, evaluation={"every": 2})
    asyncio.run(rig.run())
    assert rig.evaluated == [(2, 2), (4, 4)]
    assert rig.samplers[0].pushes == [0, 2, 0, 4, 0]
    drawn_by = {pair.weight_version for batch in rig.learner.batches for pair in batch}
    assert drawn_by == {0}


def test_overlapped_drawing_never_sees_the_weights_that_an_evaluation_looks_at(tmp_path):
    rig = Rig(
        tmp_path,
        steps=8,
        lag=2,
        negatives={"type": "snapshot", "every": 4},
        evaluation={"every": 1},
        samplers=[FakeSampler(seconds=0.005)],
    )
    asyncio.run(rig.run())
    versions = {pair.weight_version for batch in rig.learner.batches for pair in batch}
    assert versions <= {0, 4}
    assert [step for step, version in rig.evaluated if step != version] == []


def test_an_offline_share_is_drawn_by_the_sampler_that_is_never_pushed_to(tmp_path):
    rig = Rig(tmp_path, steps=10, negatives={"offline_share": 0.5})
    rig.offline.version = 0
    asyncio.run(rig.run())
    assert rig.offline.pushes == []
    assert rig.offline.drawn + rig.samplers[0].drawn == 40
    assert 10 <= rig.offline.drawn <= 30


def test_a_rollout_objective_draws_or_asks_the_teacher_never_both(tmp_path):
    rig = Rig(tmp_path, steps=10, objective={"type": "gkd", "on_policy_share": 0.5})
    asyncio.run(rig.run())
    pairs = [pair for batch in rig.learner.batches for pair in batch]
    assert all((pair.teacher_response is None) != (pair.student_response is None) for pair in pairs)
    assert rig.samplers[0].drawn == sum(pair.student_response is not None for pair in pairs)
    assert rig.samplers[0].drawn + rig.teacher.responded == 40
    assert 10 <= rig.samplers[0].drawn <= 30


def test_an_objective_of_text_alone_asks_no_sampler(tmp_path):
    rig = Rig(tmp_path, steps=3, objective={"type": "seqkd"}, samplers=[FakeSampler(fails_at=1)])
    asyncio.run(rig.run())
    assert (rig.samplers[0].calls, rig.samplers[0].pushes) == (0, [0])
    assert rig.teacher.responded == 12


def test_every_teacher_has_work_where_there_are_more_of_them_than_samplers(tmp_path):
    second = FakeTeacher()
    rig = Rig(tmp_path, steps=4, objective={"type": "seqkd"}, second_teacher=second)
    asyncio.run(rig.run())
    assert rig.teacher.responded + second.responded == 16
    assert rig.teacher.responded > 0 and second.responded > 0


def test_tuples_pass_the_reference_where_the_objective_asks_it(tmp_path):
    rig = Rig(tmp_path, steps=2, objective={"type": "ddpo"})
    asyncio.run(rig.run())
    drawn = [pair.student_response for batch in rig.learner.batches for pair in batch]
    assert {response.score for response in drawn if response} == {0.25}


def test_slots_close_when_enough_is_learned():
    async def story() -> list[int]:
        slots = Slots(window=4, total=6)
        taken = [await slots.take(10)]
        await slots.learned(4)
        taken.append(await slots.take(10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slots.take(1), 0.05)
        return taken

    assert asyncio.run(story()) == [4, 2]
