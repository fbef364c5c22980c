"""Parts without models whose whole state is a hash chain: whatever is learned twice, not at all, in
another order or from other weights ends in another state.

They visit the failpoints at the places where the real parts do.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from configs.faults import failpoint
from configs.packing import unpack
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
from tests.builders import response
from tests.orchestration.fake_parts import FakeTeacher, manifest, probe


class ChainLearner:
    """Links every batch to what it learned before."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.step = 0
        self.digest = _hash("initial")
        self.learned: list[str] = []
        """Every uid that the state is made of."""
        self._batch: list[PreferenceTuple] = []

    def rendezvous(self) -> tuple[str, int]:
        return "127.0.0.1", 0

    def start(self, address: str, port: int) -> None:
        """Nobody to meet."""

    def forward_backward(
        self, places: list[tuple[int, int]], *batches: list[PackedTuple]
    ) -> dict[str, float]:
        failpoint("learner.forward")
        assert not self._batch, "a gradient is there already"
        self._batch = unpack(batches[which][place] for which, place in places)
        time.sleep(self.seconds)
        failpoint("learner.gradient")
        return {"tokens": 6.0 * len(places), "response_length_student": 3.0}

    def optim_step(self) -> dict[str, float]:
        links = [self.digest, *(_link(pair) for pair in self._batch)]
        self.digest = _hash(" ".join(links))
        self.learned += [str(pair.uid) for pair in self._batch]
        self._batch = []
        self.step += 1
        failpoint("learner.stepped")
        return {"loss": int(self.digest[:6], 16) / 2**24, "grad_norm": 1.0, "step": self.step}

    def publish_weights(self, lend: bool, shards: int) -> tuple[WeightManifest, np.ndarray]:
        assert shards == 1
        failpoint("learner.publish")
        buffer = np.frombuffer(self.digest.encode(), np.uint8)
        return manifest(self.step, nbytes=buffer.nbytes), buffer

    def probe(self, published: object = None) -> WeightProbe:
        return probe(self.step)

    def save(self, folder: str) -> None:
        failpoint("learner.save")
        file = Path(folder) / "engine" / "chain.json"
        file.parent.mkdir()
        state = {"step": self.step, "digest": self.digest, "learned": self.learned}
        file.write_text(json.dumps(state))
        failpoint("learner.saved")

    def load(self, folder: str) -> None:
        state = json.loads((Path(folder) / "engine" / "chain.json").read_text())
        self.step, self.digest, self.learned = state["step"], state["digest"], state["learned"]

    def save_model(self, folder: str) -> None:
        tensor = np.frombuffer(self.digest.encode(), np.uint8)
        metadata = {"learned": " ".join(self.learned)}
        save_file({"digest": tensor}, Path(folder) / "model.safetensors", metadata)


class ChainSampler:
    """Draws what weights and uid determine, nothing else."""

    def __init__(self) -> None:
        self.version = 0
        self.weights = b""
        self.pushed = False

    def warm_up(self) -> None:
        """Nothing to warm."""

    def transport(self) -> str:
        return "object_store"

    def generate(self, prompts: list[Prompt], sampling: Any = None) -> Draw:
        failpoint("sampler.generate")
        failpoint("sampler.engine")
        drawn = [
            Trajectory(prompt=each, response=self._draw(each.uid), weight_version=self.version)
            for each in prompts
        ]
        failpoint("sampler.generated")
        return Draw(drawn, self.prove())

    def prove(self) -> WeightProof | None:
        if not self.pushed:
            return None
        return WeightProof(version=self.version, checksum="", logprobs=np.zeros(1, np.float32))

    def load_weights(self, manifest: WeightManifest, buffer: np.ndarray) -> WeightReceipt:
        assert manifest.version >= self.version
        return self.go_back(manifest, buffer)

    def go_back(self, manifest: WeightManifest, buffer: np.ndarray) -> WeightReceipt:
        failpoint("sampler.load")
        self.version, self.weights = manifest.version, buffer.tobytes()
        failpoint("sampler.loaded")
        self.pushed = True
        return WeightReceipt(version=self.version, seconds=0.0, nbytes=32)

    def _draw(self, uid: Uid) -> Response:
        drawn = bytes.fromhex(_hash(f"{self.weights!r} {uid}"))[:3]
        return response(*(1 + byte for byte in drawn), behaviour=-1.0)


class ChainTeacher(FakeTeacher):
    """A constant teacher that can be killed."""

    def warm_up(self) -> None:
        """Nothing to warm."""

    def respond(self, prompts: list[Prompt]) -> list[Response]:
        failpoint("teacher.respond")
        return super().respond(prompts)

    def judge(
        self,
        prompts: list[Prompt],
        answers: list[Response],
        drawn: list[Trajectory],
        offline: list[Trajectory],
    ) -> Parcel:
        failpoint("teacher.judge")
        tuples = super().judge(prompts, answers, drawn, offline)
        failpoint("teacher.judged")
        return tuples

    def statistics(self) -> dict[str, float]:
        names = ("cache_hits", "cache_misses", "generated_tokens", "scored_tokens")
        return dict.fromkeys((*names, "answered_tokens", "judged_tokens"), 0.0)


def _link(pair: PreferenceTuple) -> str:
    assert pair.student_response is not None
    return f"{pair.uid}@{pair.weight_version}:{pair.student_response.ids_T.tolist()}"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
