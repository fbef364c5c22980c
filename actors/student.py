"""StudentSampler: draws y_s from the current student, and takes new weights while it lives."""

import hashlib
import time
from concurrent.futures import Future
from typing import Any

import numpy as np

from actors.turnstile import Turnstile
from actors.vllm_engine import VllmEngine
from actors.weights import check_parts, check_tensors, check_version, joined
from configs.checksum import start_checksum
from configs.errors import DataError, WeightSyncError
from configs.faults import failpoint, is_armed
from configs.sampling import Sampling
from configs.student import StudentConfig
from configs.wire import Draw, Prompt, Trajectory, Uid, WeightManifest, WeightProof, WeightReceipt


class StudentSampler:
    """A vLLM engine with the student's weights, and the version of what it holds.

    Starts at version 0 with the weights of the folder ``model``. Calls may come from several
    threads: ``generate`` runs beside itself, and a later call's requests take the places in the
    engine that an earlier one's leave. Whatever touches the weights runs alone, after the draws
    that came in before it and before those that come in later: a response is of one version. With
    ``exit_on_engine_death`` the process ends when vLLM fails, so that the run hears of it.
    """

    def __init__(
        self,
        config: StudentConfig,
        *,
        model: str,
        seed: int,
        exit_on_engine_death: bool = False,
    ) -> None:
        self._sampling = config.sampling
        self._seed = seed
        self._engine = VllmEngine(
            model,
            dtype=config.dtype,
            seed=seed,
            max_model_len=config.max_model_len,
            trust_remote_code=config.trust_remote_code,
            revision=config.revision,
            gpu_memory_utilization=config.gpu_memory_utilization,
            tensor_parallel=config.tensor_parallel,
            receives_weights=True,
            weight_transfer=config.weight_transfer,
            exit_on_death=exit_on_engine_death,
            at_once=config.batch_size,
        )
        self._calls = Turnstile()
        self._expected = self._engine.expected_tensors()
        self._doubt: str | None = None
        self._pushed: tuple[WeightManifest, Future[str]] | None = None
        """The last push, and the checksum of what came."""
        self._proof: WeightProof | None = None
        """Of the last push, once it is computed."""
        self._paused = 0.0
        """When ``transfer`` began to bring weights, by ``time.monotonic``."""
        self.weight_version = 0
        """Version of the weights that arrived last."""

    @property
    def weight_transfer(self) -> str:
        """``object_store``: ``load_weights`` takes pushes; ``nccl`` or ``ipc``: ``transfer``."""
        assert self._engine.weight_transfer is not None
        return self._engine.weight_transfer

    def warm_up(self) -> None:
        """Generate once, so that the first real call does not pay for set-up."""
        with self._calls.side_by_side():
            self._engine.warm_up()

    def transport(self) -> str:
        """Return how weights reach this sampler: ``object_store``, ``nccl`` or ``ipc``."""
        return self.weight_transfer

    def generate(self, prompts: list[Prompt], sampling: Sampling | None = None) -> Draw:
        """Draw one response for each prompt, with the configured sampling unless one is given.

        What is drawn for a prompt is a function of weights, run seed, uid and sampling. With it
        comes the proof of its weights, to be compared (``check_proof``) before what was drawn is
        used: computed with the first draw after a push, repeated with every other. Raises DataError
        for a prompt that does not fit into the context together with ``max_new_tokens``, and
        WeightSyncError after a push that failed.
        """
        with self._calls.side_by_side():
            self._refuse_doubtful()
            sampling = sampling or self._sampling
            failpoint("sampler.generate")
            for prompt in prompts:
                if is_armed():
                    failpoint("sampler.generate", prompt.uid)
                self._check_fits(prompt, sampling.max_new_tokens)
            responses, scored = self._engine.generate_and_score(
                [prompt.prompt_ids_P for prompt in prompts],
                sampling=sampling,
                seeds=[request_seed(self._seed, prompt.uid) for prompt in prompts],
                scored=self._probe_ids(),
            )
            failpoint("sampler.generated")
            trajectories = [
                Trajectory(prompt=prompt, response=response, weight_version=self.weight_version)
                for prompt, response in zip(prompts, responses, strict=True)
            ]
            return Draw(trajectories, self._prove(scored))

    def load_weights(self, manifest: WeightManifest, *shards: list[np.ndarray]) -> WeightReceipt:
        """Load a push; ``shards`` are the bytes of the tensors that it names, in their order.

        Raises WeightSyncError when it is older than what is held, or does not arrive whole; from
        then on ``generate`` refuses, until another push does.
        """
        return self._load(manifest, joined(manifest, shards), going_back=False)

    def go_back(self, manifest: WeightManifest, *shards: list[np.ndarray]) -> WeightReceipt:
        """Do the same with a version that may be older than the one held.

        A snapshot that drew the negatives returns after an evaluation of the newest weights.
        """
        return self._load(manifest, joined(manifest, shards), going_back=True)

    def relay(self, shard: list[np.ndarray]) -> list[np.ndarray]:
        """Return a shard of a push as it came: now other machines find it here, too."""
        return shard

    def _load(
        self, manifest: WeightManifest, parts: list[np.ndarray], *, going_back: bool
    ) -> WeightReceipt:
        with self._calls.alone():
            start = time.monotonic()
            failpoint("sampler.load")
            self._doubt = f"the push of version {manifest.version} failed"
            if going_back:
                self.weight_version = min(self.weight_version, manifest.version)
            check_version(manifest, held=self.weight_version)
            check_tensors(manifest, self._expected)
            check_parts(manifest, parts)
            received = start_checksum(parts)  # damaged weights may be loaded: nobody will use them
            self._engine.load_weights(manifest, parts)
            failpoint("sampler.loaded")
            return self._accept(manifest, received, start)

    def transfer(self, phase: str, payload: dict[str, Any] | None = None) -> None:
        """Make one call of vLLM's weight-transfer protocol, for ``nccl`` and ``ipc``.

        The learner drives it (``learner.weights.open_cuda_sender``); ``accept`` follows. Not run
        on a GPU so far.
        """
        with self._calls.alone():
            if phase == "start_weight_update":
                self._doubt, self._paused = "a push is under way", time.monotonic()
            self._engine.transfer(phase, payload)

    def accept(self, manifest: WeightManifest) -> WeightReceipt:
        """Hold from now on what ``transfer`` has brought; raises WeightSyncError if it is older."""
        with self._calls.alone():
            check_version(manifest, held=self.weight_version)
            nothing: Future[str] = Future()
            nothing.set_result("")
            return self._accept(manifest, nothing, self._paused)

    def prove(self) -> WeightProof | None:
        """Return the proof without a draw; None: no weights were pushed."""
        with self._calls.alone():
            self._refuse_doubtful()
            return self._prove(self._engine.prompt_logprobs(self._probe_ids()))

    def close(self) -> None:
        """End the engine; safe to call twice."""
        with self._calls.alone():
            self._engine.close()

    def _accept(
        self, manifest: WeightManifest, received: Future[str], start: float
    ) -> WeightReceipt:
        self.weight_version = manifest.version
        self._pushed, self._proof = (manifest, received), None
        self._doubt = None
        seconds = time.monotonic() - start
        return WeightReceipt(version=manifest.version, seconds=seconds, nbytes=manifest.nbytes)

    def _refuse_doubtful(self) -> None:
        if self._doubt is not None:
            raise WeightSyncError(
                f"the sampler does not generate with such weights ({self._doubt}); push again"
            )

    def _probe_ids(self) -> list[np.ndarray]:
        """Return the sequence to be scored for a proof, or none where that has been done."""
        if self._pushed is None or self._proof is not None:
            return []
        manifest, _ = self._pushed
        return [manifest.probe_ids[: self._engine.max_model_len]]

    def _prove(self, scored: list[np.ndarray]) -> WeightProof | None:
        if self._pushed is not None and scored:
            manifest, received = self._pushed
            self._proof = WeightProof(
                version=manifest.version, checksum=received.result(), logprobs=scored[0]
            )
        return self._proof

    def _check_fits(self, prompt: Prompt, max_new_tokens: int) -> None:
        length, context = len(prompt.prompt_ids_P), self._engine.max_model_len
        if length + max_new_tokens > context:
            raise DataError(
                f"prompt {prompt.uid} (row {prompt.row}) has {length} tokens, which with "
                f"{max_new_tokens} new ones exceed the student's context of {context}; lower "
                "data.max_prompt_tokens or student.sampling.max_new_tokens"
            )


def request_seed(run_seed: int, uid: Uid) -> int:
    """Return the seed of one request: 63 bits, the same on every machine and in every run.

    >>> request_seed(0, Uid(0, 7, 0)) == request_seed(0, Uid(0, 7, 1))
    False
    """
    digest = hashlib.blake2b(f"{run_seed} {uid}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # vLLM's seeds are signed 64-bit integers
