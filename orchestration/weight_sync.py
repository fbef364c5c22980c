"""Carries the learner's weights into every running sampler, and checks that they arrived."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

from configs.errors import WeightSyncError
from configs.wire import WeightProof
from orchestration.learner_group import LearnerGroup
from orchestration.roles import Role


@dataclass(frozen=True, kw_only=True)
class SyncRecord:
    """One proved push."""

    version: int
    seconds: float
    """From asking the learner to the last sampler's proof."""
    pause_seconds: float
    """Longest time that a sampler stood still for the load."""
    probe_difference: float
    """Largest disagreement over the probe, nats."""
    nbytes: int
    """Bytes that one sampler received."""


class WeightSync:
    """Pushes are all or nothing: every sampler proves the version, or the run ends."""

    def __init__(
        self,
        learner: LearnerGroup,
        samplers: Sequence[Role],
        *,
        transport: str = "object_store",
        transfer: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        """Choose the way: one copy in the object store, or a CUDA ``transport`` of vLLM's,
        for which ``transfer`` runs a phase of its protocol on every sampler.

        ``samplers`` may change between two pushes; one that leaves during a push is in it still.
        """
        self._learner = learner
        self._samplers = samplers
        self._transport = transport
        self._transfer = transfer
        self._held: int | None = None
        self._loading = asyncio.Lock()
        self._asked = 0.0
        """When what is published was asked for."""
        self._snapshot: tuple[int, Any] | None = None
        self.records: list[SyncRecord] = []

    async def push(self, *, going_back: bool = False) -> SyncRecord:
        """Push the current weights; they never pass through this process.

        ``going_back`` allows weights older than those that the samplers hold: the learner was
        restored from a checkpoint. Raises ``WeightSyncError`` when a sampler does not hold what
        the learner sent.
        """
        if self.leaves_learner_free:
            self.publish()
            return await self.load(going_back=going_back)
        async with self._loading:
            start = time.monotonic()
            return self._proved(self._learner.step, await self._push_by_cuda(), start)

    @property
    def leaves_learner_free(self) -> bool:
        """Whether ``publish`` and ``load`` are two; a CUDA transport reads the live weights."""
        return self._transfer is None

    def publish(self) -> None:
        """Have the learner lay the current weights out. Its next step waits for ``laid_out``."""
        self._asked = time.monotonic()
        self._snapshot = (self._learner.step, self._learner.publish_weights())

    async def laid_out(self) -> None:
        """Wait until the learner may change its weights: what it published is in other memory."""
        assert self._snapshot is not None, "publish() comes first"
        manifest, _ = self._snapshot[1]
        await self._learner.ranks[0].fetch(manifest)

    async def load(self, *, going_back: bool = False) -> SyncRecord:
        """Bring what is published into every sampler; raises as ``push`` does."""
        async with self._loading:
            assert self._snapshot is not None, "publish() comes first"
            version, weights = self._snapshot
            return self._proved(version, await self._load(*weights, going_back), self._asked)

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """Keep weights from travelling for a while."""
        async with self._loading:
            yield

    @property
    def takes_newcomers(self) -> bool:
        """Whether samplers may join: a CUDA transport is opened once, for those there are."""
        return self._transfer is None

    async def give(self, sampler: Role) -> None:
        """Bring a sampler that was started anew to the weights that the others hold."""
        given: int | None = None
        # None was pushed: it holds the initial weights, as they do. One was pushed meanwhile: that
        # may have come before what was given.
        while self._snapshot is not None and self._snapshot[0] != given:
            given, weights = self._snapshot
            proof = await sampler.call("load_weights", *weights, True)
            self._check(sampler, proof, given)

    @asynccontextmanager
    async def newest(self, *, bring_back: bool) -> AsyncIterator[None]:
        """Let the samplers hold the newest weights for a while, then what they held before.

        Where negatives are drawn by a snapshot, an evaluation looks at the newest all the same;
        ``bring_back`` is false where nobody will draw from that snapshot again.
        """
        before = self._snapshot
        if self._samplers and self._held != self._learner.step:
            await self.push()
        try:
            yield
        except BaseException:
            self._snapshot = before  # whoever tries again has that to bring back
            raise
        if bring_back and before is not None and before[0] != self._held:
            self._snapshot, self._asked = before, time.monotonic()
            await self.load(going_back=True)

    def _proved(self, version: int, proofs: Mapping[Role, WeightProof], start: float) -> SyncRecord:
        for sampler, proof in proofs.items():
            self._check(sampler, proof, version)
        self._held = version
        record = SyncRecord(
            version=version,
            seconds=time.monotonic() - start,
            pause_seconds=max(proof.seconds for proof in proofs.values()),
            probe_difference=max(proof.probe_difference for proof in proofs.values()),
            nbytes=max(proof.nbytes for proof in proofs.values()),
        )
        self.records.append(record)
        return record

    @staticmethod
    def _check(sampler: Role, proof: WeightProof, version: int) -> None:
        if proof.version != version:
            raise WeightSyncError(
                f"{sampler.name} holds weight version {proof.version} after a push of "
                f"{version}; the run cannot go on with unknown weights"
            )

    async def _load(self, *weights: Any) -> dict[Role, WeightProof]:
        """One copy, which every sampler reads from shared memory."""
        return await self._each("load_weights", *weights)

    async def _push_by_cuda(self) -> dict[Role, WeightProof]:
        """Let the learner drive vLLM's protocol, then ask for the proof."""
        rank = self._learner.ranks[0]
        arguments = (self._transfer, self._transport, len(self._samplers))
        manifest = await rank.call("send_weights", *arguments)
        return await self._each("prove", manifest)

    async def _each(self, method: str, *arguments: Any) -> dict[Role, WeightProof]:
        samplers = list(self._samplers)
        calls = (each.call(method, *arguments) for each in samplers)
        proofs = await asyncio.gather(*calls, return_exceptions=True)
        if errors := [proof for proof in proofs if isinstance(proof, BaseException)]:
            raise errors[0]  # now that all have answered: another try meets no call of this one
        return dict(zip(samplers, cast(list[WeightProof], proofs), strict=True))

    def summary(self) -> dict[str, float | int | bool]:
        """Return the ``weight_sync`` section of summary.json."""
        seconds = [record.seconds for record in self.records]
        return {
            "count": len(self.records),
            "seconds_p50": round(median(seconds), 5) if seconds else 0.0,
            "bytes": self.records[-1].nbytes if self.records else 0,
            "verified": bool(self.records),
            "probe_difference_max": max((r.probe_difference for r in self.records), default=0.0),
        }
