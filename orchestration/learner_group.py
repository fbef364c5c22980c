"""The learner's ranks, addressed as one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.payloads import Picked
from orchestration.roles import AnswerLost, Role, RoleDied


class LearnerGroup:
    """One role per data-parallel rank; every collective call goes to all of them."""

    def __init__(self, ranks: Sequence[Role]) -> None:
        self.ranks = ranks
        self.step = 0
        """Optimizer steps made: the weight version of the learner."""

    async def start(self, timeout: float) -> None:
        """Bring up torch.distributed and DeepSpeed on every rank, within ``timeout`` seconds.

        The ranks, built anew perhaps, hold the initial student then.
        """
        address, port = await self.ranks[0].call("rendezvous")
        await self._all("start", address, port, timeout=timeout)
        self.step = 0

    async def learn(self, batch: Picked) -> Mapping[str, float]:
        """Make one optimizer step on ``batch``.

        Returns the global statistics of the step. Raises ``NonFiniteError`` before the
        optimizer has touched the weights, and ``AnswerLost`` where a part of the batch went with
        its machine before the step began.
        """
        try:
            statistics = await self._all("forward_backward", batch.places, *batch.batches)
        except AnswerLost as loss:
            if len(self.ranks) == 1:
                raise
            # Some ranks have the batch, and wait for the others in the middle of a sum.
            first = self.ranks[0]
            raise RoleDied(str(loss), role=first.name, life=first.life) from loss
        step = await self._all("optim_step")
        self.step += 1
        return {**statistics[0], **step[0]}

    async def discard(self) -> None:
        """Give up the batch that ``learn`` refused to learn from; the weights stay."""
        await self._all("discard")

    async def save(self, folder: str) -> None:
        """Write the whole state of every rank below ``folder``."""
        await self._all("save", folder)

    async def load(self, folder: str, step: int) -> None:
        """Go back, or on, to what ``save`` wrote after ``step`` steps."""
        await self._all("load", folder)
        self.step = step

    def publish_weights(self, shards: int = 1) -> tuple[tuple[Any, ...], Any]:
        """Return references to the weights (manifest, and so many shards), held by rank 0, and
        to what they are to be proved by. The next step may begin when the last is there.
        """
        published = [
            rank.submit("publish_weights", rank.copies_answers, shards, returns=1 + shards)
            for rank in self.ranks
        ]
        return published[0], self.probe([manifest for manifest, *_ in published])

    def probe(self, behind: Sequence[Any] = ()) -> Any:
        """Return a reference to what the present weights make of the probe.

        Ray keeps no order of calls: ``behind`` are each rank's answers to wait for.
        """
        waits = behind or [None] * len(self.ranks)
        probes = [rank.submit("probe", wait) for rank, wait in zip(self.ranks, waits, strict=True)]
        return probes[0]

    async def nll(self, prompts: Any) -> Mapping[str, float]:
        """Return the gold responses' mean negative log-likelihood."""
        return (await self._all("nll", prompts))[0]

    async def save_model(self, folder: str) -> None:
        """Write the student in Hugging Face layout."""
        await self._all("save_model", folder)

    async def _all(self, method: str, *args: Any, timeout: float | None = None) -> list[Any]:
        calls = (rank.call(method, *args, timeout=timeout) for rank in self.ranks)
        return await asyncio.gather(*calls)
