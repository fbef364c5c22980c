"""The loops, over parts without models: order, lag, balance, errors, stopping."""

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DependencyError, NonFiniteError, WeightSyncError
from configs.run import RunConfig
from configs.wire import Draw, Parcel, Prompt, Response, Uid
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger, read_events
from orchestration.local import LocalRole
from orchestration.parts import Parts
from orchestration.payloads import Payloads
from orchestration.pipeline import Pipeline
from orchestration.replay import ReplayQueue
from orchestration.roles import AnswerLost, RoleDied
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
        queue: type[ReplayQueue] = ReplayQueue,
        max_skipped: int = 3,
        **sections: object,
    ) -> None:
        self.config = RunConfig.model_validate(
            {
                "student": {"model": "s", "batch_size": 4},
                "teacher": {"model": "t"},
                "learner": {
                    "steps": steps,
                    "batch_size": 4,
                    "max_nonfinite_steps": max_skipped,
                },
                "replay": {"max_policy_lag": lag, "max_dropped": 3},
                **sections,
            }
        )
        self.samplers = list(samplers) or [FakeSampler()]
        self.offline = FakeSampler()
        self.teacher = teacher or FakeTeacher()
        self.teachers = [self.teacher, *([second_teacher] if second_teacher else [])]
        self.learner = learner or FakeLearner()
        self.queue = queue
        self.recorder = FakeRecorder()
        self.path = folder / "events.jsonl"
        self.ledger = Ledger(self.path)
        self.supervisor = FakeSupervisor()
        self.start = 0
        self.joins: dict[int, FakeSampler] = {}
        """Step → who joins behind it."""
        self.leaves: set[int] = set()
        """Steps behind which the last sampler leaves."""
        self.kept: list[int] = []
        """Steps after which a checkpoint was asked for."""
        self.evaluated: list[tuple[int, int]] = []
        """Step of each evaluation, and the version that the sampler then held."""

    async def run(
        self, *, stop_after: int | None = None, stop_at_issue: int | None = None
    ) -> Pipeline:
        self.roles = roles = [_role(f"sampler-{i}", part) for i, part in enumerate(self.samplers)]
        teachers = [_role(f"teacher-{i}", part) for i, part in enumerate(self.teachers)]
        queue = _role("queue", self._queue())
        prompts = FakePrompts()
        if self.ledger.last_issued:
            prompts.seek_behind(self.ledger.last_issued)
        offline, reference = _role("offline-0", self.offline), _role("reference-0", FakeReference())
        group = LearnerGroup([_role("learner-0", self.learner)])
        group.step = self.start
        every = [*roles, *teachers, queue, offline, reference, *group.ranks]
        await asyncio.gather(*(role.call("build") for role in every))
        self.sync = sync = WeightSync(group, roles)
        parts = Parts(
            prompts=prompts,  # type: ignore[arg-type]
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
            regroup=self._regroup,
            step=self.start,
            unfinished=self.ledger.in_flight,
        )
        if stop_after:
            self.recorder.stepped = _stopping(self.recorder, pipeline, stop_after)  # type: ignore[method-assign]
        if stop_at_issue:
            self.ledger.issued = _stopping_at(self.ledger, pipeline, stop_at_issue)  # type: ignore[method-assign]
        try:
            await sync.push()
            await asyncio.wait_for(pipeline.run(), 20)
        finally:
            await pipeline.settle()
            self.ledger.close()
            await asyncio.gather(*(role.stop() for role in every))
        return pipeline

    def _queue(self) -> ReplayQueue:
        bound = {"max_policy_lag": self.config.lag_bound}
        return self.queue(self.config.replay.model_copy(update=bound))

    def learned(self) -> list[list[int]]:
        """Ordinals by batch."""
        return [[pair.uid.ordinal for pair in batch] for batch in self.learner.batches]

    def noted(self, kind: str) -> list[list[str]]:
        """Uids by event of one kind."""
        return [e["uids"] for e in read_events(self.path) if e["event"] == kind]

    async def _keep(self, step: int) -> None:
        self.kept.append(step)

    async def _regroup(self, step: int) -> None:
        if part := self.joins.get(step):
            role = _role(f"sampler-{len(self.roles)}", part)
            await role.call("build")
            await self.sync.give(role)
            self.roles.append(role)
        if step in self.leaves:
            self.roles.pop()

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


def _stopping_at(ledger: Ledger, pipeline: Pipeline, nth: int):
    original, calls = ledger.issued, itertools.count(1)

    def issued(uids: Any) -> None:
        original(uids)
        if next(calls) == nth:
            pipeline.stop()

    return issued


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


@pytest.mark.parametrize("lag", [0, 2])
def test_samplers_join_and_leave_between_steps_and_nothing_is_lost(tmp_path, lag):
    rig = Rig(tmp_path, steps=13, lag=lag)
    newcomer = FakeSampler()
    rig.joins, rig.leaves = {2: newcomer}, {10}
    asyncio.run(rig.run())
    assert newcomer.pushes == list(range(2, 11)), "given what the others hold, then every push"
    assert newcomer.calls >= 5, "it draws"
    assert sorted(chain.from_iterable(rig.learned())) == list(range(52))
    assert max(rig.recorder.lags) <= lag
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.in_flight) == (52, 52, 0)


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
    assert rig.recorder.refused == [1, 6]


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


def test_what_was_in_flight_when_a_run_ended_is_issued_again_first(tmp_path):
    rig = Rig(tmp_path, steps=5)
    rig.ledger.issued([Uid(0, ordinal, 0) for ordinal in range(8)])
    rig.ledger.consumed(1, [Uid(0, ordinal, 0) for ordinal in (0, 1, 2, 5)])
    rig.start = rig.learner.step = 1
    asyncio.run(rig.run())
    assert rig.learned() == [[3, 4, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]
    assert rig.noted("reissued") == [["0/3/0", "0/4/0", "0/6/0", "0/7/0"]]
    assert rig.recorder.steps == [2, 3, 4, 5]
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.in_flight) == (20, 20, 0)


def test_more_that_is_unfinished_than_a_call_takes_comes_in_its_order(tmp_path):
    rig = Rig(tmp_path, steps=2)
    rig.ledger.issued([Uid(0, ordinal, 0) for ordinal in range(6)])
    asyncio.run(rig.run())
    assert rig.learned() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rig.noted("reissued") == [["0/0/0", "0/1/0", "0/2/0", "0/3/0"], ["0/4/0", "0/5/0"]]


def test_checkpoints_are_asked_for_where_they_are_due_and_not_at_the_last_step(tmp_path):
    rig = Rig(tmp_path, steps=6, checkpoint={"every": 2})
    asyncio.run(rig.run())
    assert rig.kept == [2, 4]


def test_checkpoints_come_with_the_snapshots_that_draw(tmp_path):
    rig = Rig(
        tmp_path,
        steps=9,
        checkpoint={"every": 2},
        negatives={"type": "snapshot", "every": 3},
    )
    asyncio.run(rig.run())
    assert rig.kept == [3, 6]


@pytest.mark.parametrize("where", ["refuses", "balks"])
def test_a_prompt_without_a_usable_answer_is_dropped_and_its_batch_goes_on(tmp_path, where):
    teacher = FakeTeacher(**{where: (5, 6, 12)})
    rig = Rig(tmp_path, steps=4, teacher=teacher)
    asyncio.run(rig.run())
    assert sorted(chain.from_iterable(rig.learned())) == [
        o for o in range(19) if o not in (5, 6, 12)
    ]
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed) == (19, 16)
    assert balance.dropped == {"teacher_failed": 3}
    assert rig.recorder.failed == [5, 6, 12]


def test_too_many_prompts_without_a_usable_answer_stop_the_run(tmp_path):
    rig = Rig(tmp_path, steps=9, teacher=FakeTeacher(refuses=(1, 2, 5, 6, 9)))
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    (error,) = caught.value.exceptions
    assert isinstance(error, DependencyError)
    assert "as teacher_failed: more than replay.max_dropped (3); read the log of" in str(error)


class ForgetfulTeacher(FakeTeacher):
    """Its answers over an ordinal are lost on their way, so many times."""

    def __init__(self, ordinal: int, times: int) -> None:
        super().__init__()
        self.ordinal, self.times = ordinal, times

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        if self.times and any(prompt.uid.ordinal == self.ordinal for prompt in prompts):
            self.times -= 1
            raise AnswerLost("an answer that teacher-0 was to have is lost")
        return super().respond(prompts)


def test_answers_that_are_lost_again_and_again_make_no_prompt_a_suspect(tmp_path):
    rig = Rig(tmp_path, steps=3, teacher=ForgetfulTeacher(5, times=7))
    rig.supervisor.mend = lambda death: None
    asyncio.run(rig.run())
    assert list(chain.from_iterable(rig.learned())) == list(range(12))
    assert rig.ledger.balance().dropped == {}


class LateTeacher(FakeTeacher):
    """Has no score for an ordinal when it is asked for it again."""

    def __init__(self, ordinal: int) -> None:
        super().__init__()
        self.ordinal = ordinal

    def judge(self, prompts: list[Prompt], *rest: Any) -> Parcel:
        judged = super().judge(prompts, *rest)
        if any(prompt.uid.ordinal == self.ordinal for prompt in prompts):
            self.balks = {self.ordinal}
        return judged


def test_a_stale_pair_that_the_teacher_has_no_score_for_is_dropped_too(tmp_path):
    stale = FakeSampler(stale_at=2)
    rig = Rig(tmp_path, steps=3, samplers=[stale], teacher=LateTeacher(6))
    asyncio.run(rig.run())
    assert rig.noted("redrawn") == [["0/4/0", "0/5/0", "0/6/0", "0/7/0"]]
    assert rig.noted("dropped") == [["0/6/0"]]
    assert sorted(chain.from_iterable(rig.learned())) == [o for o in range(13) if o != 6]


class SpoiledLearner(FakeLearner):
    """Refuses the batches whose numbers, from 1, are given: their loss is none."""

    def __init__(self, *spoiled: int) -> None:
        super().__init__()
        self.spoiled = spoiled

    def optim_step(self) -> dict[str, float]:
        if len(self.batches) in self.spoiled:
            raise NonFiniteError("the loss became NaN")
        return super().optim_step()


def test_a_step_without_a_number_is_skipped_and_others_learn_in_its_place(tmp_path):
    rig = Rig(tmp_path, steps=3, learner=SpoiledLearner(2), replay={"max_dropped": 4})
    asyncio.run(rig.run())
    assert rig.learned() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert (rig.learner.step, rig.learner.discarded) == (3, 1)
    assert rig.samplers[0].pushes == [0, 1, 2, 3], "weights were pushed after no step"
    assert (rig.recorder.steps, rig.recorder.skips) == ([1, 2, 3], [(1, 4)])
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.dropped) == (16, 12, {"nonfinite": 4})
    assert rig.noted("dropped") == [["0/4/0", "0/5/0", "0/6/0", "0/7/0"]]


def test_skipped_steps_in_a_row_end_the_run(tmp_path):
    rig = Rig(
        tmp_path,
        steps=9,
        learner=SpoiledLearner(2, 3, 4),
        max_skipped=2,
        replay={"max_dropped": 99},
    )
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert isinstance(caught.value.exceptions[0], NonFiniteError)
    assert (rig.learner.step, rig.learner.discarded) == (1, 3)
    assert rig.recorder.skips == [(1, 4), (1, 4), (1, 4)]


def test_skipped_steps_that_are_not_in_a_row_do_not_add_up(tmp_path):
    learner = SpoiledLearner(2, 4, 6)
    rig = Rig(tmp_path, steps=4, learner=learner, max_skipped=1, replay={"max_dropped": 99})
    asyncio.run(rig.run())
    assert rig.learner.step == 4


class DyingSampler(FakeSampler):
    """Dies over certain prompts, so many times each."""

    def __init__(self, deaths: dict[int, int]) -> None:
        super().__init__()
        self.deaths = deaths
        self.asked: list[list[int]] = []

    def generate(self, prompts: list[Prompt], sampling: Any = None) -> Draw:
        ordinals = [prompt.uid.ordinal for prompt in prompts]
        self.asked.append(ordinals)
        for ordinal in ordinals:
            if self.deaths.get(ordinal, 0):
                self.deaths[ordinal] -= 1
                raise RoleDied("sampler-0 died", role="sampler-0", life=0)
        return super().generate(prompts, sampling)


def test_calls_go_to_the_sampler_that_has_fewest_to_answer(tmp_path):
    """By turns alone a slow sampler would be given half of all calls."""
    slow, quick = FakeSampler(seconds=0.2), FakeSampler(seconds=0.01)
    asyncio.run(Rig(tmp_path, steps=12, samplers=[slow, quick], lag=3).run())
    assert quick.drawn > slow.drawn > 0


class OnceDead(FakeSampler):
    """Is dead from its third call on, until it is mended."""

    def __init__(self) -> None:
        super().__init__(seconds=0.01)
        self.dead, self.refused = False, 0

    def generate(self, prompts: list[Prompt], sampling: Any = None) -> Draw:
        self.dead |= self.calls == 2
        if self.dead:
            self.calls += 1
            self.refused += 1
            raise RoleDied("sampler-0 died", role="sampler-0", life=0)
        return super().generate(prompts, sampling)


def test_a_dead_sampler_is_not_asked_while_there_is_another(tmp_path):
    """It has nothing to do, but not because it is quick."""
    dead, other = OnceDead(), FakeSampler(seconds=0.01)
    rig = Rig(tmp_path, steps=12, samplers=[dead, other], lag=3)

    async def revive(death: RoleDied) -> None:
        await asyncio.sleep(0.5)
        dead.dead = False

    rig.supervisor.revive = revive  # type: ignore[method-assign]
    asyncio.run(rig.run())
    assert 1 <= dead.refused <= 2, "those that it had been given"
    assert rig.ledger.balance().in_flight == 0


class Forgetful(FakeLearner):
    """Finds now and then that a batch's contents are gone."""

    def __init__(self, *, loses: Sequence[int]) -> None:
        super().__init__()
        self.loses, self.asked = set(loses), 0

    def forward_backward(self, *batch: Any) -> dict[str, float]:
        self.asked += 1
        if self.asked in self.loses:
            raise AnswerLost("what teacher-0 made lay on a machine that is gone")
        return super().forward_backward(*batch)


@pytest.mark.parametrize("lag", [0, 2])
def test_tuples_whose_contents_are_lost_are_made_again_and_learned_from_once(tmp_path, lag):
    rig = Rig(tmp_path, steps=6, lag=lag, learner=Forgetful(loses=[2, 3, 6]))
    rig.supervisor.mend = lambda death: None
    pipeline = asyncio.run(rig.run())
    assert sorted(chain.from_iterable(rig.learned())) == list(range(24))
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.in_flight) == (24, 24, 0)
    assert rig.noted("reissued") and max(rig.recorder.lags) <= lag
    assert len(pipeline._production.payloads) == 0, "nothing is kept of what is learned from"


def test_one_machine_that_is_lost_is_one_loss_however_many_batches_lay_there(tmp_path):
    """Each restart is counted, and a run has few."""
    rig = Rig(tmp_path, steps=20, lag=8, learner=LosesAllOnce(at=6))
    rig.supervisor.mend = lambda death: None
    asyncio.run(rig.run())
    assert len(rig.noted("reissued")) > 5, "batches that lay there"
    assert rig.supervisor.deaths == ["answer"]
    assert sorted(chain.from_iterable(rig.learned())) == list(range(80))


class LosesAllOnce(FakeLearner):
    """From its ``at``-th batch on it misses every tuple that was made before that."""

    def __init__(self, at: int) -> None:
        super().__init__(seconds=0.01)
        self.at, self.asked = at, 0
        self.gone: set[int] = set()

    def forward_backward(self, places: Any, *batches: Any) -> dict[str, float]:
        self.asked += 1
        if self.asked == self.at:
            first = min(pair.uid.ordinal for batch in batches for pair in batch)
            self.gone = set(range(first, first + 32))
        batch = {batches[which][place].uid.ordinal for which, place in places}
        if lost := batch & self.gone:
            self.gone -= lost
            raise AnswerLost("what teacher-0 made lay on a machine that is gone")
        return super().forward_backward(places, *batches)


def test_a_stale_pair_whose_contents_are_lost_is_made_anew(tmp_path, monkeypatch):
    rig = Rig(tmp_path, steps=3, samplers=[FakeSampler(stale_at=2)])
    rig.supervisor.mend = lambda death: None
    read, lost = Payloads.read, []

    async def fails_once(payloads: Payloads, uids: Sequence[Uid], **how: Any) -> Any:
        if not lost:
            lost.extend(uids)
            raise AnswerLost("what teacher-0 made lay on a machine that is gone")
        return await read(payloads, uids, **how)

    monkeypatch.setattr(Payloads, "read", fails_once)
    asyncio.run(rig.run())
    assert [uid.ordinal for uid in lost] == [4, 5, 6, 7]
    assert rig.noted("reissued") == [["0/4/0", "0/5/0", "0/6/0", "0/7/0"]]
    assert sorted(chain.from_iterable(rig.learned())) == list(range(12))


def test_samplers_that_are_alike_draw_alike(tmp_path):
    samplers = [FakeSampler(seconds=0.02) for _ in range(3)]
    rig = Rig(tmp_path, steps=12, samplers=samplers, lag=1)
    asyncio.run(rig.run())
    most, least = (kind(each.drawn for each in samplers) for kind in (max, min))
    assert least > 0.7 * most


def test_whoever_waited_for_a_part_that_died_asks_again(tmp_path):
    sampler = DyingSampler({5: 1})
    rig = Rig(tmp_path, steps=3, samplers=[sampler])
    rig.supervisor.mend = lambda death: None
    asyncio.run(rig.run())
    assert rig.supervisor.deaths == ["sampler-0"]
    assert sampler.asked[1:3] == [[4, 5, 6, 7], [4, 5, 6, 7]]
    assert rig.learned() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    balance = rig.ledger.balance()
    assert (balance.issued, balance.consumed, balance.in_flight) == (12, 12, 0)


def test_a_prompt_that_kills_again_and_again_is_found_and_given_up(tmp_path):
    sampler = DyingSampler({5: 99})
    rig = Rig(tmp_path, steps=3, samplers=[sampler])
    rig.supervisor.mend = lambda death: None
    asyncio.run(rig.run())
    assert sampler.asked[1:8] == [[4, 5, 6, 7], [4, 5, 6, 7], [4], [5], [6], [7], [8]]
    assert rig.learned() == [[0, 1, 2, 3], [4, 6, 7, 8], [9, 10, 11, 12]]
    assert rig.noted("dropped") == [["0/5/0"]]
    assert rig.ledger.balance().dropped == {"poison": 1}


def test_a_death_that_cannot_be_mended_ends_the_loops(tmp_path):
    rig = Rig(tmp_path, steps=3, samplers=[DyingSampler({5: 1})])
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert isinstance(caught.value.exceptions[0], RoleDied)
    assert rig.ledger.in_flight == [Uid(0, ordinal, 0) for ordinal in (4, 5, 6, 7)]


class DyingQueue(ReplayQueue):
    """Dies of its second ack."""

    acks = 0

    async def ack(self, lease_id: str, step: int) -> list[Uid]:
        self.acks += 1
        self._live()
        return await super().ack(lease_id, step)

    async def statistics(self) -> dict[str, int]:
        self._live()
        return await super().statistics()

    async def lease(self, count: int, learner_version: int, timeout: float | None = None) -> Any:
        self._live()
        return await super().lease(count, learner_version, timeout)

    def _live(self) -> None:
        if self.acks == 2:
            raise RoleDied("queue died", role="queue", life=0)


def test_a_step_whose_queue_died_of_the_ack_is_booked_and_pushed_and_recorded(tmp_path):
    rig = Rig(tmp_path, steps=5, queue=DyingQueue)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(rig.run())
    assert isinstance(caught.value.exceptions[0], RoleDied)
    assert rig.noted("consumed") == [
        ["0/0/0", "0/1/0", "0/2/0", "0/3/0"],
        ["0/4/0", "0/5/0", "0/6/0", "0/7/0"],
    ]
    assert (rig.recorder.steps, rig.recorder.pushed) == ([1, 2], [1, 2])


def test_a_step_under_way_is_booked_whatever_ends_the_loops(tmp_path):
    learner = FakeLearner(seconds=0.2)
    rig = Rig(tmp_path, steps=5, lag=1, learner=learner, samplers=[FakeSampler(fails_at=3)])
    with pytest.raises(ExceptionGroup):
        asyncio.run(rig.run())
    assert learner.step == 2
    assert rig.ledger.balance().consumed == 8
    assert (rig.recorder.steps, rig.recorder.pushed) == ([1, 2], [1, 2])


def test_a_step_whose_push_failed_is_recorded(tmp_path):
    rig = Rig(tmp_path, steps=5, samplers=[DeafSampler()])
    with pytest.raises(ExceptionGroup):
        asyncio.run(rig.run())
    assert rig.noted("consumed") == [["0/0/0", "0/1/0", "0/2/0", "0/3/0"]]
    assert (rig.recorder.steps, rig.recorder.pushed) == ([1], [None])


def test_a_run_that_is_told_to_stop_does_not_wait_for_a_batch_that_never_comes(tmp_path):
    """Half a batch is issued when the signal comes, and the other half never will be."""
    rig = Rig(tmp_path, steps=50, samplers=[FakeSampler(), FakeSampler()])
    pipeline = asyncio.run(asyncio.wait_for(rig.run(stop_at_issue=5), 10))
    assert pipeline.step == 2
    assert rig.ledger.balance().in_flight == 2


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
