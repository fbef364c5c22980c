"""StudentSampler: draws y_s from the current student, and takes new weights while it lives."""

import hashlib
import time
from typing import Any

import numpy as np

from actors.vllm_engine import VllmEngine
from actors.weights import check_parts, check_probe, check_received, check_tensors, check_version
from configs.checksum import start_checksum
from configs.errors import DataError, WeightSyncError
from configs.faults import failpoint, is_armed
from configs.sampling import Sampling
from configs.student import StudentConfig
from configs.wire import Prompt, Trajectory, Uid, WeightManifest, WeightProof


class StudentSampler:
    """A vLLM engine with the student's weights, and the version of what it holds.

    Starts at version 0 with the weights of the folder ``model``. With ``exit_on_engine_death``
    the process ends when vLLM fails, so that the run hears of it.
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
        )
        self._expected = self._engine.expected_tensors()
        self._doubt: str | None = None
        self.weight_version = 0
        """Version of the last proved weights."""

    @property
    def weight_transfer(self) -> str:
        """``object_store``: ``load_weights`` takes pushes; ``nccl`` or ``ipc``: ``transfer``."""
        assert self._engine.weight_transfer is not None
        return self._engine.weight_transfer

    def warm_up(self) -> None:
        """Generate once, so that the first real call does not pay for set-up."""
        self._engine.warm_up()

    def transport(self) -> str:
        """Return how weights reach this sampler: ``object_store``, ``nccl`` or ``ipc``."""
        return self.weight_transfer

    def generate(self, prompts: list[Prompt], sampling: Sampling | None = None) -> list[Trajectory]:
        """Draw one response for each prompt, with the configured sampling unless one is given.

        What is drawn for a prompt is a function of weights, run seed, uid and sampling.
        Raises DataError for a prompt that does not fit into the context together with
        ``max_new_tokens``, and WeightSyncError after a push that was not proved.
        """
        if self._doubt is not None:
            raise WeightSyncError(
                f"the sampler does not generate with unproved weights ({self._doubt}); push again"
            )
        sampling = sampling or self._sampling
        failpoint("sampler.generate")
        for prompt in prompts:
            if is_armed():
                failpoint("sampler.generate", prompt.uid)
            self._check_fits(prompt, sampling.max_new_tokens)
        responses = self._engine.generate(
            [prompt.prompt_ids_P for prompt in prompts],
            sampling=sampling,
            seeds=[request_seed(self._seed, prompt.uid) for prompt in prompts],
        )
        failpoint("sampler.generated")
        return [
            Trajectory(prompt=prompt, response=response, weight_version=self.weight_version)
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def load_weights(
        self, manifest: WeightManifest, parts: list[np.ndarray], going_back: bool = False
    ) -> WeightProof:
        """Load a push and prove it; ``parts`` are the bytes of the tensors that it names.

        ``going_back`` allows a version older than the one held: a snapshot that drew the
        negatives returns after an evaluation of the newest weights. Raises WeightSyncError when
        any part of the proof fails; from then on ``generate`` refuses, until another push is
        proved.
        """
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
        check_received(manifest, received.result())
        failpoint("sampler.loaded")
        return self.prove(manifest, start=start, nbytes=manifest.nbytes)

    def transfer(self, phase: str, payload: dict[str, Any] | None = None) -> None:
        """Make one call of vLLM's weight-transfer protocol, for ``nccl`` and ``ipc``.

        The learner drives it (``learner.weights.open_cuda_sender``); ``prove`` follows. Not run
        on a GPU so far.
        """
        if phase == "start_weight_update":
            self._doubt = "a push has not been proved yet"
        self._engine.transfer(phase, payload)

    def prove(
        self, manifest: WeightManifest, *, start: float | None = None, nbytes: int = 0
    ) -> WeightProof:
        """Compute the probe's log-probabilities; on agreement the manifest's version is held.

        ``start`` is when generation paused (``time.monotonic``; None: now). Raises
        WeightSyncError otherwise.
        """
        start = time.monotonic() if start is None else start
        check_version(manifest, held=self.weight_version)
        probe_ids = manifest.probe_ids[: self._engine.max_model_len]
        difference = check_probe(manifest, self._engine.prompt_logprobs([probe_ids])[0])
        self.weight_version = manifest.version
        self._doubt = None
        return WeightProof(
            version=manifest.version,
            probe_difference=difference,
            seconds=time.monotonic() - start,
            nbytes=nbytes,
        )

    def close(self) -> None:
        """End the engine; safe to call twice."""
        self._engine.close()

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
