"""Faults that need no process: tuples out of order, twice and late; rows that are none."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

from configs.load import load
from configs.replay import ReplayConfig
from configs.wire import Uid
from orchestration.inputs import open_prompts, open_tokenizer
from orchestration.replay import Lease, ReplayQueue
from tests.faults.faulty_run import Outcome
from tests.orchestration.replay_builders import Clock, pair

TUPLES, SEED = 400, 20261122


class Mess:
    """Puts tuples in any order, some again and again; lets leases expire and acks come late."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.clock = Clock()
        self.queue = ReplayQueue(ReplayConfig(lease_seconds=10), clock=self.clock)
        self.leases: list[Lease] = []
        self.consumed: Counter[Uid] = Counter()

    async def make(self) -> dict[str, int]:
        todo = list(range(TUPLES))
        self.draw.shuffle(todo)
        while sum(self.consumed.values()) < TUPLES:
            await self._put([todo.pop() for _ in range(min(len(todo), self.draw.randint(0, 9)))])
            lease = await self.queue.lease(8, learner_version=0, timeout=0)
            if lease.uids:
                self.leases.append(lease)
            self.clock.now += self.draw.choice((1, 1, 11))
            for lease in self.draw.sample(self.leases, min(len(self.leases), 2)):
                self.consumed.update(await self.queue.ack(lease.id, step=1))
            if not todo:
                await self.queue.close()
        return await self.queue.statistics()

    async def _put(self, ordinals: list[int]) -> None:
        again = [self.draw.randrange(TUPLES) for _ in range(3)]
        known = [n for n in again if self.queue._state.knows(Uid(0, n, 0))]
        if ordinals or known:
            await self.queue.put([pair(n) for n in ordinals + known])


def test_tuples_out_of_order_twice_and_late_are_applied_once(report):
    mess = Mess(SEED)
    seen = asyncio.run(mess.make())
    assert seen["duplicates"] > 20 and seen["late"] > 20 and seen["late_acks"] > 20, seen
    assert seen["expired"] > 20, seen
    twice = sum(count > 1 for count in mess.consumed.values())
    report(Outcome("18 tuples doubled, late, out of order", f"seed {SEED}", None, 0, twice))
    assert set(mess.consumed) == {Uid(0, ordinal, 0) for ordinal in range(TUPLES)}


BAD = (
    b"{not json}\n",
    b'{"instruction": "no end\n',
    b"[1, 2]\n",
    b'{"instruction": "?"}\n',
    b"{}\n",
    b'{"instruction": "\xff", "context": "", "response": "x"}\n',
)


def test_rows_that_are_none_are_counted_and_every_other_is_used_once(tmp_path: Path, report):
    path = tmp_path / "rows.jsonl"
    good = [
        json.dumps({"instruction": f"count to {n}", "context": "", "response": " ".join("12345")})
        for n in range(40)
    ]
    lines = [line.encode() + b"\n" for line in good]
    for index, row in enumerate(BAD):
        lines.insert(5 * index, row)
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(lines) + b'{"instruction": "torn')
    settings = [f"data.train={path}", "data.on_bad_row=skip", f"cache={tmp_path}"]
    sizes = ["data.tokenizer_vocab=300", "data.validation_rows=0"]
    sizes += ["teacher.make.context=256", "student.make.context=256"]
    config = load("quickstart", [*settings, *sizes])
    prompts = open_prompts(config, open_tokenizer(config, print))
    taken = Counter(prompt.row for prompt in prompts.take(len(prompts)))
    skipped = sum(prompts.skipped.values())
    assert skipped == len(BAD) + 1, prompts.skipped
    lost, twice = len(good) - len(taken), sum(count > 1 for count in taken.values())
    report(Outcome(f"15 {skipped} rows of {len(lines) + 1} are none", "a file", None, lost, twice))
