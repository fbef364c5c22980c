"""To many machines weights go in shards, each by way of one of them, and arrive whole."""

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from configs.wire import WeightReceipt
from orchestration import fan_out
from orchestration.fan_out import relays, ways
from orchestration.learner_group import LearnerGroup
from orchestration.roles import AnswerLost, Process, Role, RoleDied
from orchestration.weight_sync import WeightSync
from tests.orchestration.fake_parts import FakeLearner, FakeSampler
from tests.orchestration.test_pipeline import Rig, _role

HOME = "10.0.0.1"


class RelayingSampler(FakeSampler):
    """Notes in how many shards weights came, and which it handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.shards: list[int] = []
        self.handed_on: list[list[int]] = []
        self.failure: Exception | None = None
        self.fails_to_go_back: Exception | None = None
        """Raised by the next load of an older version."""

    def relay(self, shard: np.ndarray) -> np.ndarray:
        if self.failure:
            failure, self.failure = self.failure, None
            raise failure
        self.handed_on.append(shard.tolist())
        return shard

    def go_back(self, manifest: Any, *shards: np.ndarray) -> WeightReceipt:
        if self.fails_to_go_back and manifest.version < self.version:
            failure, self.fails_to_go_back = self.fails_to_go_back, None
            raise failure
        self.shards.append(len(shards))
        return super().go_back(manifest, *shards)


def at(role: Role, address: str | None) -> Role:
    role.process = address and Process("host", 1, address)  # type: ignore[assignment]
    return role


def placed(*addresses: str | None) -> tuple[list[RelayingSampler], list[Role]]:
    parts = [RelayingSampler() for _ in addresses]
    roles = [_role(f"sampler-{i}", part) for i, part in enumerate(parts)]
    return parts, [at(role, address) for role, address in zip(roles, addresses, strict=True)]


def chosen(*addresses: str | None, learner: str | None = HOME) -> list[str]:
    _, samplers = placed(*addresses)
    return [each.name for each in relays(samplers, at(_role("learner-0", object()), learner))]


def test_one_sampler_of_every_other_machine_hands_a_shard_on():
    assert chosen("b", "c", "d") == ["sampler-0", "sampler-1", "sampler-2"]
    assert chosen("b", HOME, "b", "c", "c", "d", HOME) == ["sampler-0", "sampler-3", "sampler-5"]


def test_nobody_does_where_the_straight_way_is_as_short():
    assert chosen() == []
    assert chosen("b", "c") == chosen("b", "c", "c", HOME) == chosen(*[HOME] * 9) == []


def test_who_has_not_said_where_it_is_hands_nothing_on():
    assert chosen("b", None, "c", "d") == ["sampler-0", "sampler-2", "sampler-3"]
    assert chosen("b", "c", None) == chosen("b", "c", "d", learner=None) == []


def test_there_are_no_more_shards_than_the_driver_can_tell_everybody_of(monkeypatch):
    monkeypatch.setattr(fan_out, "MOST", 4)
    assert chosen(*"bcdefghij") == [f"sampler-{index}" for index in range(4)]


def test_there_may_be_other_machines_by_now_than_shards():
    parts, samplers = placed("b", "c", "d", HOME)
    learner = at(_role("learner-0", object()), HOME)

    async def story(count: int) -> list[list[list[int]]]:
        await asyncio.gather(*(each.call("build") for each in samplers))
        shards = [np.full(1, number) for number in range(count)]
        found = ways(shards, samplers, learner)
        assert found.to(samplers[3]) is shards, "they lie on its machine"
        to_first = [(await samplers[0].fetch(each)).tolist() for each in found.to(samplers[0])]
        return [to_first, [part.handed_on for part in parts]]  # type: ignore[list-item]

    assert asyncio.run(story(5)) == [
        [[0], [1], [2], [3], [4]],
        [[[0], [3]], [[1], [4]], [[2]], []],
    ]
    assert asyncio.run(story(1))[0] == [[0]]


def pushed(parts: list[RelayingSampler], samplers: list[Role], *, join: int = 0) -> WeightSync:
    """Push once to all but the last ``join`` samplers, which are given the weights behind."""
    held = samplers[: len(samplers) - join]
    learner = LearnerGroup([at(_role("learner-0", FakeLearner()), HOME)])
    sync = WeightSync(learner, held)

    async def story() -> None:
        await asyncio.gather(*(each.call("build") for each in (*samplers, *learner.ranks)))
        await sync.push()
        for each in samplers[len(held) :]:
            await sync.give(each)

    asyncio.run(story())
    return sync


def test_a_push_reaches_all_samplers_whole():
    parts, samplers = placed("b", "b", "c", "d", HOME)
    sync = pushed(parts, samplers)
    assert [part.version for part in parts] == [0] * 5
    assert [part.shards for part in parts] == [[3]] * 5, "and what was cut was all there"
    assert [part.handed_on for part in parts] == [[[0, 1]], [], [[2]], [[3]], []]
    assert sync.summary()["verified"] is True


def test_two_machines_are_sent_a_copy_each():
    parts, samplers = placed("b", "c", HOME)
    pushed(parts, samplers)
    assert [part.shards for part in parts] == [[1]] * 3
    assert [part.handed_on for part in parts] == [[]] * 3


def test_who_joins_later_has_the_shards_from_the_learner():
    parts, samplers = placed("b", "c", "d", "e")
    pushed(parts, samplers, join=1)
    assert parts[3].version == 0
    assert [len(part.handed_on) for part in parts] == [1, 1, 1, 0]


class ScatteredRig(Rig):
    """Its samplers turn out to be on three machines; something befalls the second's shard."""

    failure: Exception

    async def _regroup(self, step: int) -> None:
        if step == 1:
            for role, address in zip(self.roles, "bcd", strict=True):
                at(role, address)
            at(self.sync._learner.ranks[0], HOME)
            cast(RelayingSampler, self.samplers[1]).failure = self.failure
        await super()._regroup(step)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(
    ("failure", "mended"),
    [
        (AnswerLost("its machine is gone"), 0),
        (RoleDied("sampler-1 died", role="sampler-1", life=0), 1),
    ],
)
def test_a_shard_that_is_lost_on_its_way_comes_from_the_learner(
    tmp_path: Path, lag: int, failure: Exception, mended: int
):
    parts = [RelayingSampler() for _ in "bcd"]
    rig = ScatteredRig(tmp_path, samplers=parts, steps=4, lag=lag)
    rig.failure = failure
    deaths: list[Exception] = []
    rig.supervisor.mend = deaths.append
    asyncio.run(rig.run())
    assert deaths == [failure] * mended, "what the learner has still is no loss"
    assert rig.recorder.steps == [1, 2, 3, 4]
    assert all(part.version == 4 for part in parts)
    assert all((part.shards[0], part.shards[-1]) == (1, 3) for part in parts)


def test_after_a_push_that_failed_nobody_is_taken_for_holding_it():
    """An evaluation that is tried again pushes again, and a snapshot is brought back again."""
    parts, samplers = placed("b", "c")
    learner = LearnerGroup([_role("learner-0", FakeLearner())])
    sync = WeightSync(learner, samplers)
    seen: list[list[int]] = []

    async def evaluate() -> None:
        async with sync.newest(bring_back=True):
            seen.append([part.version for part in parts])

    async def story() -> None:
        await asyncio.gather(*(each.call("build") for each in (*samplers, *learner.ranks)))
        await sync.push()
        await learner.ranks[0].call("optim_step")
        learner.step = 1
        parts[1].fails_to_go_back = AnswerLost("gone")
        with pytest.raises(AnswerLost):
            await evaluate()
        assert [part.version for part in parts] == [0, 1]
        await evaluate()

    asyncio.run(story())
    assert seen == [[1, 1], [1, 1]]
    assert [part.version for part in parts] == [0, 0]
