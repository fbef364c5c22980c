"""Parts with the real interfaces and no models, to drive the pipeline by."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.wire import PreferenceTuple, Prompt, Response, Trajectory, WeightManifest, WeightProof
from tests.builders import ids, prompt, response


class FakePrompts:
    """Issues ordinals 0, 1, 2, ..."""

    def __init__(self) -> None:
        self.position = 0

    def take(self, count: int) -> list[Prompt]:
        taken = [prompt(self.position + index) for index in range(count)]
        self.position += count
        return taken


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

    def generate(self, prompts: list[Prompt], sampling: Any = None) -> list[Trajectory]:
        self.calls += 1
        if self.fails_at == self.calls:
            raise RuntimeError("the sampler broke")
        time.sleep(self.seconds)
        drawn = response(behaviour=-1.0)
        version = self.version - (self.stale_at == self.calls)
        return [Trajectory(prompt=p, response=drawn, weight_version=version) for p in prompts]

    def load_weights(self, manifest: WeightManifest, buffer: np.ndarray) -> WeightProof:
        assert buffer.nbytes == manifest.nbytes
        self.version = manifest.version
        return WeightProof(version=self.version, probe_difference=0.0, seconds=0.0, nbytes=4)


class DeafSampler(FakeSampler):
    """Never takes a second push."""

    def load_weights(self, manifest: WeightManifest, buffer: np.ndarray) -> WeightProof:
        self.version = 0
        return WeightProof(version=0, probe_difference=0.0, seconds=0.0, nbytes=4)


class FakeTeacher:
    """Answers and scores with constants."""

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        return [response(4, 3, 2, teacher=-0.5) for _ in prompts]

    def score(
        self, trajectories: list[Trajectory], responses: Sequence[Response | None]
    ) -> list[PreferenceTuple]:
        return [
            PreferenceTuple(
                prompt=drawn.prompt,
                teacher_response=answer,
                student_response=response(behaviour=-1.0, teacher=-2.0),
                weight_version=drawn.weight_version,
            )
            for drawn, answer in zip(trajectories, responses, strict=True)
        ]


class FakeLearner:
    """Counts steps and remembers what it was given."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.step = 0
        self.seconds = seconds
        self.batches: list[list[PreferenceTuple]] = []

    def forward_backward(self, tuples: list[PreferenceTuple]) -> dict[str, float]:
        time.sleep(self.seconds)
        self.batches.append(tuples)
        return {"loss": 0.5, "tokens": 6.0 * len(tuples), "response_length_student": 3.0}

    def optim_step(self) -> dict[str, float]:
        self.step += 1
        return {"grad_norm": 1.0, "learning_rate": 1e-3, "step": float(self.step)}

    def publish_weights(self) -> tuple[WeightManifest, np.ndarray]:
        manifest = WeightManifest(
            version=self.step,
            tensors=(),
            nbytes=4,
            checksum="",
            probe_ids=ids(1, 2),
            probe_logprobs=np.zeros(1, np.float32),
            probe_tolerance=1e-4,
        )
        return manifest, np.zeros(4, np.uint8)


class FakeRecorder:
    """Keeps the lags and losses that a real recorder would publish."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.lags: list[int] = []

    def resumed(self) -> None:
        """Nothing to time here."""

    def stepped(self, step: int, lease: Any, outcome: Any, pushed: Any, queue: Any) -> None:
        self.steps.append(step)
        self.lags += lease.lags
