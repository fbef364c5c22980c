"""Parts with the real interfaces and no models, to drive the pipeline by."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from configs.errors import TeacherFailedError
from configs.packing import pack, unpack
from configs.wire import (
    Draw,
    PackedTuple,
    Parcel,
    PreferenceTuple,
    Prompt,
    Response,
    Trajectory,
    Uid,
    WeightManifest,
    WeightProbe,
    WeightProof,
    WeightReceipt,
)
from orchestration.roles import RoleDied
from tests.builders import ids, prompt, response


class FakePrompts:
    """Issues ordinals 0, 1, 2, ..., in epochs of ``rows``."""

    fingerprint = "rows"

    def __init__(self, rows: int = 1 << 20) -> None:
        self.rows = rows
        self.skipped: Counter[str] = Counter()
        self.next = Uid(0, 0, 0)

    def __len__(self) -> int:
        return self.rows

    def take(self, count: int) -> list[Prompt]:
        taken = []
        for _ in range(count):
            taken.append(self.prompt(self.next))
            self.seek_behind(self.next)
        return taken

    def prompt(self, uid: Uid) -> Prompt:
        return prompt(uid.ordinal, epoch=uid.epoch)

    def seek(self, position: dict[str, int]) -> None:
        self.next = Uid(**position)

    def seek_behind(self, uid: Uid) -> None:
        epoch, ordinal = divmod(uid.epoch * self.rows + uid.ordinal + 1, self.rows)
        self.next = Uid(epoch, ordinal, 0)

    def validation(self) -> list[Prompt]:
        return []


class FakeSampler:
    """Answers every prompt the same, with the version it holds."""

    def __init__(
        self, *, seconds: float = 0.0, fails_at: int | None = None, stale_at: int | None = None
    ) -> None:
        self.stale_at = stale_at
        self.version = -1
        self.seconds = seconds
        self.fails_at = fails_at
        self.calls = 0
        self.drawn = 0
        self.pushes: list[int] = []
        self.proved: list[int] = []
        self.logprob = 0.0
        """What it makes of the probe; the learner makes 0 of it."""

    def generate(self, prompts: list[Prompt], sampling: Any = None) -> Draw:
        self.calls += 1
        self.drawn += len(prompts)
        if self.fails_at == self.calls:
            raise RuntimeError("the sampler broke")
        time.sleep(self.seconds)
        drawn = response(behaviour=-1.0)
        version = self.version - (self.stale_at == self.calls)
        trajectories = [
            Trajectory(prompt=p, response=drawn, weight_version=version) for p in prompts
        ]
        return Draw(trajectories, self.prove())

    def prove(self) -> WeightProof | None:
        if not self.pushes:
            return None
        if self.version not in self.proved[-1:]:
            self.proved.append(self.version)
        logprobs = np.full(1, self.logprob, np.float32)
        return WeightProof(version=self.version, checksum="", logprobs=logprobs)

    def load_weights(self, manifest: WeightManifest, *shards: np.ndarray) -> WeightReceipt:
        assert manifest.version >= self.version
        return self.go_back(manifest, *shards)

    def go_back(self, manifest: WeightManifest, *shards: np.ndarray) -> WeightReceipt:
        assert np.concatenate(shards).tolist() == list(range(manifest.nbytes))
        self.version = manifest.version
        self.pushes.append(manifest.version)
        return WeightReceipt(version=self.version, seconds=0.0, nbytes=4)


class DeafSampler(FakeSampler):
    """Never takes a second push."""

    def go_back(self, manifest: WeightManifest, *shards: np.ndarray) -> WeightReceipt:
        self.version = 0
        self.pushes.append(0)
        return WeightReceipt(version=0, seconds=0.0, nbytes=4)


class FakeTeacher:
    """Answers and judges with constants; NaN for the ordinals in ``fails_on``.

    It has no usable answer to the ordinals in ``refuses``, and no score for those in ``balks``.
    """

    def __init__(
        self,
        fails_on: Sequence[int] = (),
        *,
        refuses: Sequence[int] = (),
        balks: Sequence[int] = (),
    ) -> None:
        self.fails_on = set(fails_on)
        self.refuses, self.balks = set(refuses), set(balks)
        self.responded = 0

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        _refuse(prompts, self.refuses)
        self.responded += len(prompts)
        return [response(4, 3, 2, teacher=-0.5) for _ in prompts]

    def judge(
        self,
        prompts: list[Prompt],
        answers: list[Response],
        drawn: list[Trajectory],
        offline: list[Trajectory],
    ) -> Parcel:
        _refuse(prompts, self.balks)
        by_uid = {trajectory.prompt.uid: trajectory for trajectory in (*drawn, *offline)}
        given = iter(answers)
        pairs = len(answers) == len(prompts)
        return pack(
            self._join(
                prompt,
                by_uid.get(prompt.uid),
                next(given) if pairs or prompt.uid not in by_uid else None,
            )
            for prompt in prompts
        ).parcel()

    def _join(
        self, prompt: Prompt, drawn: Trajectory | None, answer: Response | None
    ) -> PreferenceTuple:
        score = float("nan") if prompt.uid.ordinal in self.fails_on else -2.0
        return PreferenceTuple(
            prompt=prompt,
            teacher_response=answer,
            student_response=_scored(drawn.response, score) if drawn else None,
            weight_version=drawn.weight_version if drawn else None,
        )


def _refuse(prompts: Sequence[Prompt], ordinals: set[int]) -> None:
    uids = tuple(prompt.uid for prompt in prompts if prompt.uid.ordinal in ordinals)
    if uids:
        raise TeacherFailedError("the server gave an answer that cannot be used", uids)


def _scored(drawn: Response, score: float) -> Response:
    return replace(drawn, teacher_logprobs_T=np.full(len(drawn.ids_T), score, np.float32))


class FakeReference:
    """Scores by the initial student, as a constant."""

    def annotate(self, packed: list[PackedTuple]) -> Parcel:
        annotated = []
        for pair in unpack(packed):
            assert pair.student_response is not None
            answer = replace(pair.student_response, score=0.25)
            annotated.append(replace(pair, student_response=answer))
        return pack(annotated).parcel()


class FakeLearner:
    """Counts steps and remembers what it was given."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.step = 0
        self.seconds = seconds
        self.batches: list[list[PreferenceTuple]] = []
        self.discarded = 0

    def discard(self) -> None:
        self.discarded += 1

    def forward_backward(
        self, places: list[tuple[int, int]], *batches: list[PackedTuple]
    ) -> dict[str, float]:
        time.sleep(self.seconds)
        tuples = unpack(batches[which][place] for which, place in places)
        self.batches.append(tuples)
        return {"loss": 0.5, "tokens": 6.0 * len(tuples), "response_length_student": 3.0}

    def optim_step(self) -> dict[str, float]:
        self.step += 1
        return {"grad_norm": 1.0, "learning_rate": 1e-3, "step": float(self.step)}

    def publish_weights(self, lend: bool = False, shards: int = 1) -> tuple[Any, ...]:
        return manifest(self.step, nbytes=4), *np.array_split(np.arange(4, dtype=np.uint8), shards)

    def probe(self, published: object = None) -> WeightProbe:
        return probe(self.step)


def probe(version: int) -> WeightProbe:
    logprobs = np.zeros(1, np.float32)
    return WeightProbe(version=version, checksum="", logprobs=logprobs, tolerance=1e-4)


def manifest(version: int, *, nbytes: int) -> WeightManifest:
    return WeightManifest(
        version=version,
        tensors=(),
        nbytes=nbytes,
        probe_ids=ids(1, 2),
    )


class FakeSupervisor:
    """Mends nothing but what a test lets it, by ``mend``; remembers the deaths."""

    def __init__(self) -> None:
        self.deaths: list[str] = []
        self.mend: Callable[[RoleDied], None] = _cannot

    async def revive(self, death: RoleDied) -> None:
        self.deaths.append(death.role)
        self.mend(death)

    async def persist(self, work: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await work()
            except RoleDied as death:
                await self.revive(death)


def _cannot(death: RoleDied) -> None:
    raise death


class FakeRecorder:
    """Keeps the lags and losses that a real recorder would publish."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.lags: list[int] = []
        self.pushed: list[int | None] = []
        """Version that was pushed after each step."""
        self.skips: list[tuple[int, int]] = []
        """Step before a skipped one, and the uses of prompts that it gave up."""
        self.refused: list[int] = []
        """Ordinals of tuples with a number that is none."""
        self.failed: list[int] = []
        """Ordinals that the teacher had no usable answer to."""

    def poisoned(self, uids: Sequence[Uid]) -> None:
        self.refused += [uid.ordinal for uid in uids]

    def teacher_failed(self, uids: Sequence[Uid], why: str) -> None:
        self.failed += [uid.ordinal for uid in uids]

    def resumed(self) -> None:
        """Nothing to time here."""

    def skipped(self, step: int, uids: Sequence[Uid], why: str) -> None:
        self.skips.append((step, len(uids)))

    def stepped(self, step: int, lease: Any, outcome: Any, pushed: Any, queue: Any) -> None:
        self.steps.append(step)
        self.lags += lease.lags
        self.pushed.append(pushed and pushed.version)
