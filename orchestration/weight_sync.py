"""Carries the learner's weights into every running sampler, and has them proved.

    learner   publish ─ probe ───────────────────────────────┐
    sampler        └──► load ─ the next draw, with its proof ─┴─► check ─► what was drawn is used

Samplers stand still for the load alone: the learner computes what is to be proved meanwhile, and
they compute the proof in the same steps of their engines in which they draw.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple, cast

from actors.weights import check_proof
from configs.errors import WeightSyncError
from configs.wire import WeightProof, WeightReceipt
from orchestration.fan_out import Ways, relays, ways
from orchestration.learner_group import LearnerGroup
from orchestration.roles import AnswerLost, Role


@dataclass(frozen=True, kw_only=True)
class SyncRecord:
    """One push."""

    version: int
    seconds: float
    """From asking the learner until the last sampler could draw."""
    pause_seconds: float
    """Longest time that a sampler stood still for the load."""
    probe_difference: float
    """Largest disagreement over the probe in the proofs since the push before, nats."""
    nbytes: int
    """Bytes that one sampler received."""


class _Published(NamedTuple):
    version: int
    manifest: Any
    """A reference."""
    shards: Sequence[Any]
    """References to the bytes of every tensor."""


_PROBES_KEPT = 64
"""Versions of which the learner's word is kept: a draw may be answered some pushes later."""


class WeightSync:
    """Pushes are all or nothing: every sampler holds the version, and whatever it draws with it is
    proved before it is used, or the run ends.
    """

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
        self._snapshot: _Published | None = None
        self._lent: _Published | None = None
        """What the samplers held before an evaluation that was cut off."""
        self._probes: dict[int, Any] = {}
        """References to what the learner says of each version, the newest last."""
        self._unproved: dict[Role, int] = {}
        """Version that a sampler holds and has not proved yet."""
        self._due: set[int] = set()
        """Versions that were loaded and that nobody has proved yet."""
        self._proved = 0
        """Loads that somebody has proved."""
        self._difference = 0.0
        """Largest disagreement over a probe since the last record."""
        self.records: list[SyncRecord] = []

    async def push(self, *, going_back: bool = False) -> SyncRecord:
        """Push the current weights, and have them proved; they never pass through this process.

        ``going_back`` allows weights older than those that the samplers hold: the learner was
        restored from a checkpoint. Raises ``WeightSyncError`` when a sampler does not hold what
        the learner sent.
        """
        if self.leaves_learner_free:
            self.publish()
            record = await self.load(going_back=going_back)
        else:
            record = await self._push_by_cuda()
        await self.prove()
        return record

    @property
    def leaves_learner_free(self) -> bool:
        """Whether ``publish`` and ``load`` are two; a CUDA transport reads the live weights."""
        return self._transfer is None

    def publish(self) -> None:
        """Have the learner lay the current weights out. Its next step waits for ``laid_out``."""
        self._asked = time.monotonic()
        shards = max(1, len(relays(self._samplers, self._learner.ranks[0])))
        (manifest, *weights), probe = self._learner.publish_weights(shards)
        self._snapshot, self._lent = _Published(self._learner.step, manifest, weights), None
        self._expect(self._learner.step, probe)

    async def laid_out(self) -> None:
        """Wait until the learner may change its weights: what it published is in other memory,
        and it has computed what that is to be proved by.
        """
        assert self._snapshot is not None, "publish() comes first"
        await self._learner.ranks[0].fetch(self._probes[self._snapshot.version])

    async def load(self, *, going_back: bool = False) -> SyncRecord:
        """Bring what is published into every sampler, which then draws, and proves it so."""
        async with self._loading:
            assert self._snapshot is not None, "publish() comes first"
            version, manifest, shards = self._snapshot
            found = ways(shards, self._samplers, self._learner.ranks[0])
            method = "go_back" if going_back else "load_weights"
            try:
                receipts = await self._each(version, method, manifest, found)
            except AnswerLost:
                if not found.relayed:
                    raise
                # With a machine that handed it on, perhaps: the learner has it still.
                receipts = await self._each(version, method, manifest, Ways(shards))
            return self._record(version, receipts, self._asked)

    async def prove(self) -> None:
        """Have those samplers prove what they hold that have not drawn with it; raises as above."""
        samplers = [each for each in self._samplers if each in self._unproved]
        answers = await asyncio.gather(*map(self._ask, samplers), return_exceptions=True)
        if errors := [each for each in answers if isinstance(each, BaseException)]:
            raise errors[0]

    async def _ask(self, sampler: Role) -> None:
        proof = await sampler.call("prove")
        if proof is None:
            raise WeightSyncError(f"{sampler.name} says nothing of the weights that it was given")
        await self.check(sampler, proof)

    async def check(self, sampler: Role, proof: WeightProof | None) -> None:
        """Compare what came with a draw; raises ``WeightSyncError`` where it proves nothing.

        Nothing may be done before with what was drawn. None: no weights were pushed before it.
        """
        if proof is None:
            return
        if proof.version not in self._probes:
            raise WeightSyncError(
                f"{sampler.name} drew with weights of version {proof.version}, which the learner "
                "never published, or replaced long ago"
            )
        probe = await self._learner.ranks[0].fetch(self._probes[proof.version])
        difference = check_proof(probe, proof, sampler.name)
        self._difference = max(self._difference, difference)
        if self._unproved.get(sampler) == proof.version:
            del self._unproved[sampler]
        if proof.version in self._due:
            self._due.remove(proof.version)
            self._proved += 1

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
        while self._snapshot is not None and self._snapshot.version != given:
            given, manifest, shards = self._snapshot
            self._unproved[sampler] = given
            self._arrived(sampler, await sampler.call("go_back", manifest, *shards), given)
            await self._ask(sampler)

    @asynccontextmanager
    async def newest(self, *, bring_back: bool) -> AsyncIterator[None]:
        """Let the samplers hold the newest weights for a while, then what they held before.

        Where negatives are drawn by a snapshot, an evaluation looks at the newest all the same;
        ``bring_back`` is false where nobody will draw from that snapshot again.
        """
        before = self._lent or self._snapshot
        try:
            if self._samplers and self._held != self._learner.step:
                await self.push()
            await self.prove()
            yield
        finally:
            self._lent = before  # whoever tries again has that to bring back
        if bring_back:
            await self.bring_back()
        self._lent = None

    async def bring_back(self) -> None:
        """Let the samplers hold again what they held before an evaluation, if that is another."""
        before = self._lent
        if before is not None and before.version != self._held:
            self._snapshot, self._asked = before, time.monotonic()
            await self.load(going_back=True)
        self._lent = None

    def _record(
        self, version: int, receipts: Mapping[Role, WeightReceipt], start: float
    ) -> SyncRecord:
        for sampler, receipt in receipts.items():
            self._arrived(sampler, receipt, version)
        self._held = version
        self._due.add(version)
        record = SyncRecord(
            version=version,
            seconds=time.monotonic() - start,
            pause_seconds=max(receipt.seconds for receipt in receipts.values()),
            probe_difference=self._difference,
            nbytes=max(receipt.nbytes for receipt in receipts.values()),
        )
        self._difference = 0.0
        self.records.append(record)
        return record

    def _expect(self, version: int, probe: Any) -> None:
        """Remember what a version is to be proved by, and forget what nobody can hold any more."""
        self._probes.pop(version, None)
        self._probes[version] = probe
        kept = {each.version for each in (self._snapshot, self._lent) if each} | {self._held}
        for old in [old for old in self._probes if old not in kept][:-_PROBES_KEPT]:
            del self._probes[old]
            self._due.discard(old)
        for role in self._unproved.keys() - set(self._samplers):  # it has left
            del self._unproved[role]

    @staticmethod
    def _arrived(sampler: Role, receipt: WeightReceipt, version: int) -> None:
        if receipt.version != version:
            raise WeightSyncError(
                f"{sampler.name} holds weight version {receipt.version} after a push of "
                f"{version}; the run cannot go on with unknown weights"
            )

    async def _push_by_cuda(self) -> SyncRecord:
        """Let the learner drive vLLM's protocol."""
        async with self._loading:
            start, version, rank = time.monotonic(), self._learner.step, self._learner.ranks[0]
            arguments = (self._transfer, self._transport, len(self._samplers))
            manifest = await rank.call("send_weights", *arguments)
            self._expect(version, self._learner.probe())
            return self._record(
                version, await self._each(version, "accept", manifest, Ways(())), start
            )

    async def _each(
        self, version: int, method: str, manifest: Any, found: Ways
    ) -> dict[Role, WeightReceipt]:
        """Have every sampler hold a version: one copy a machine, which all of them read."""
        samplers = list(self._samplers)
        self._unproved.update(dict.fromkeys(samplers, version))
        self._held = None  # until all have answered nobody knows
        calls = (each.call(method, manifest, *found.to(each)) for each in samplers)
        receipts = await asyncio.gather(*calls, return_exceptions=True)
        # Now that all have answered another try meets no call of this one. What died explains what
        # was lost with it.
        errors = [each for each in receipts if isinstance(each, BaseException)]
        if errors:
            try:
                raise min(errors, key=lambda error: isinstance(error, AnswerLost))
            finally:
                del errors, receipts  # an error that holds its own frame would hold the weights
        return dict(zip(samplers, cast(list[WeightReceipt], receipts), strict=True))

    def summary(self) -> dict[str, float | int | bool]:
        """Return the ``weight_sync`` section of summary.json.

        ``count`` loads, of which ``proved`` were drawn with or asked after; the others were
        replaced before anybody drew. ``verified``: what the samplers hold now is proved.
        """
        seconds = [record.seconds for record in self.records]
        differences = [self._difference, *(record.probe_difference for record in self.records)]
        return {
            "count": len(self.records),
            "seconds_p50": round(median(seconds), 5) if seconds else 0.0,
            "bytes": self.records[-1].nbytes if self.records else 0,
            "proved": self._proved,
            "verified": bool(self.records) and self._unproved.keys().isdisjoint(self._samplers),
            "probe_difference_max": max(differences),
        }
