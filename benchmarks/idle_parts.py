"""Parts with the real interfaces that do no work, to drive the real pipeline by over Ray."""

import numpy as np

from benchmarks.made_tuples import RESPONSE, batch_of
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

_MADE = unpack(batch_of(0))


class Prompts:
    """Endless prompts of the usual length."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[Prompt]:
        """Return the next ``count``."""
        first, self._next = self._next, self._next + count
        return [self.prompt(Uid(0, ordinal, 0)) for ordinal in range(first, self._next)]

    def prompt(self, uid: Uid) -> Prompt:
        """Return the prompt of a uid."""
        ids = _MADE[uid.ordinal % len(_MADE)].prompt.prompt_ids_P
        return Prompt(uid=uid, row=uid.ordinal, prompt_ids_P=ids)


class Sampler:
    """Draws the same response to every prompt."""

    _version = 0
    _pushed = False

    def generate(self, prompts: list[Prompt]) -> Draw:
        """Return a trajectory a prompt."""
        drawn = [
            Trajectory(prompt=prompt, response=_student(), weight_version=self._version)
            for prompt in prompts
        ]
        return Draw(drawn, self.prove())

    def prove(self) -> WeightProof | None:
        """Agree with the learner; None: no weights were pushed."""
        if not self._pushed:
            return None
        return WeightProof(version=self._version, checksum="", logprobs=np.zeros(1, np.float32))

    def load_weights(self, manifest: WeightManifest, buffer: np.ndarray) -> WeightReceipt:
        """Take a version in."""
        self._version, self._pushed = manifest.version, True
        return WeightReceipt(version=manifest.version, seconds=0.0, nbytes=buffer.nbytes)


class Teacher:
    """Gives the same answer to every prompt."""

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        """Return a y_t a prompt."""
        return [_teacher()] * len(prompts)

    def judge(
        self,
        prompts: list[Prompt],
        answers: list[Response],
        drawn: list[Trajectory],
        offline: list[Trajectory],
    ) -> Parcel:
        """Return packed tuples."""
        batch = pack(
            PreferenceTuple(
                prompt=prompt,
                teacher_response=answer,
                student_response=trajectory.response,
                weight_version=trajectory.weight_version,
            )
            for prompt, answer, trajectory in zip(prompts, answers, drawn, strict=True)
        )
        return batch.parcel()


class Learner:
    """Unpacks what it is given, and counts steps."""

    _step = 0

    def forward_backward(
        self, places: list[tuple[int, int]], *batches: list[PackedTuple]
    ) -> dict[str, float]:
        """Open every tuple."""
        opened = unpack(batches[which][place] for which, place in places)
        tokens = 2.0 * RESPONSE * len(opened)
        return {"loss": 0.5, "tokens": tokens, "response_length_student": float(RESPONSE)}

    def optim_step(self) -> dict[str, float]:
        """Count a step."""
        self._step += 1
        return {"grad_norm": 1.0, "learning_rate": 1e-3, "step": float(self._step)}

    def publish_weights(self, _lend: bool, _shards: int) -> tuple[WeightManifest, np.ndarray]:
        """Publish a version, and nothing else."""
        manifest = WeightManifest(
            version=self._step, tensors=(), nbytes=4, probe_ids=np.zeros(2, np.int32)
        )
        return manifest, np.zeros(4, np.uint8)

    def probe(self, published: object = None) -> WeightProbe:
        """Say what the sampler says."""
        logprobs = np.zeros(1, np.float32)
        return WeightProbe(version=self._step, checksum="", logprobs=logprobs, tolerance=1e-4)


def _student() -> Response:
    response = _MADE[0].student_response
    assert response is not None
    return response


def _teacher() -> Response:
    response = _MADE[0].teacher_response
    assert response is not None
    return response
