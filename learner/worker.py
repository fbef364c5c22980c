"""One rank of the learner, as orchestration drives it. A plain class; Ray is not known here."""

import errno
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.activations import ACT2FN, GELUTanh

from configs.checksum import start_checksum
from configs.errors import CheckpointError, DependencyError, NonFiniteError
from configs.faults import failpoint
from configs.packing import unpack
from configs.run import RunConfig
from configs.wire import PackedTuple, Prompt, TensorSpec, WeightManifest, WeightProbe
from learner import rendezvous
from learner.batch import collate
from learner.checkpoint import save_model
from learner.engine import DeepSpeedEngine
from learner.logprobs import ResponseScorer, disable_dropout, prove_scorer
from learner.precision import matmul_precision
from learner.segments import Asked, Segment
from learner.step import forward_backward, gold_nll
from learner.weights import WeightCopies, WeightViews, cut, make_manifest, open_cuda_sender

_FULL_BYTES = 1 << 20
"""A disk with less room is taken for full: torch says of a failed write only that it failed."""
_PROBE_LENGTH = 8
_PROBE_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
"""Nats by which two engines may differ on the same weights, by number format."""


class LearnerWorker:
    """Holds the student under DeepSpeed. Life: rendezvous, start, then steps, then close.

    Every method but ``rendezvous`` is collective: it is called on all ranks, with the same
    arguments.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        model: str,
        rank: int,
        world_size: int,
        address: str | None = None,
    ) -> None:
        """Remember what to load: ``model`` is a folder in Hugging Face layout or a hub name.

        ``address`` is this machine's in the cluster, where it is in one.
        """
        assert 0 <= rank < world_size
        self._config = config
        self._source = model
        self._rank, self._world_size = rank, world_size
        self._address = address
        self._listener: socket.socket | None = None
        self._engine: DeepSpeedEngine | None = None
        self._sender: Any = None
        self._loss_is_finite = True
        self._sent: Future[str] | None = None
        """The checksum of what was published last; its bytes may be the live weights'."""

    def rendezvous(self) -> tuple[str, int]:
        """Return the address and port at which rank 0 will wait for the others."""
        assert self._rank == 0 and self._listener is None
        own = rendezvous.own_address(self._world_size, self._address)
        self._listener = rendezvous.listen(own)
        address, port = self._listener.getsockname()
        return address, port

    def start(self, address: str, port: int) -> None:
        """Join the other ranks, load the model and start DeepSpeed.

        Raises DependencyError when the model cannot be loaded, ConfigError when it is of a
        kind whose log-probabilities cannot be computed in chunks.
        """
        config = self._config.learner
        if config.threads:  # else as OMP_NUM_THREADS says
            torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(self._config.deterministic)
        os.environ.setdefault("LOCAL_RANK", "0")  # a Ray actor sees its own device only
        rendezvous.join(
            address,
            port,
            rank=self._rank,
            world_size=self._world_size,
            backend=_backend(),
            listener=self._listener,
            own=self._address,
        )
        scorer = ResponseScorer(self._load_model(), logits_at_once=config.logits_at_once)
        prove_scorer(scorer)
        self._engine = DeepSpeedEngine(scorer, config)

    @property
    def engine(self) -> DeepSpeedEngine:
        """The started engine."""
        assert self._engine is not None, "start() comes first"
        return self._engine

    @property
    def step(self) -> int:
        """Optimizer steps made so far: the version of the weights."""
        return self.engine.step

    def forward_backward(
        self, places: Sequence[tuple[int, int]], *batches: Sequence[PackedTuple]
    ) -> dict[str, float]:
        """Accumulate the gradient over a whole batch, of which this rank takes its share.

        ``places`` says of every tuple in which of ``batches`` it is, and where in it. Returns the
        global statistics of ``learner/step.py``, the same on every rank.
        """
        spoiled = failpoint("learner.forward") == "nan"
        config = self._config.learner
        with matmul_precision(config.matmul_precision):
            statistics = forward_backward(
                self.engine,
                unpack(batches[which][place] for which, place in places),
                self._config.objective,
                token_budget=config.micro_batch_tokens,
                share_prompts=config.share_prompts,
            )
        failpoint("learner.gradient")
        self._loss_is_finite = statistics["nonfinite"] == 0 and not spoiled
        return statistics

    def optim_step(self) -> dict[str, float]:
        """Update the weights once; return ``grad_norm``, ``learning_rate``, ``step``.

        Raises NonFiniteError, with the weights untouched, when the loss or a gradient since
        the last step was NaN or infinite.
        """
        for finite, what in (
            (self._loss_is_finite, "a log-probability or the loss"),
            (self.engine.gradients_are_finite(), "a gradient"),
        ):
            if not finite:
                raise NonFiniteError(
                    f"{what} became NaN or infinite at learner step {self.step}, the weights are "
                    "as before it; lower learner.learning_rate, or look at the batch's responses"
                )
        learning_rate = self.engine.learning_rate
        grad_norm = self.engine.optimizer_step()
        failpoint("learner.stepped")
        return {"grad_norm": grad_norm, "learning_rate": learning_rate, "step": float(self.step)}

    def discard(self) -> None:
        """Forget the gradient since the last step: the batch is given up, the weights stay."""
        self._loss_is_finite = True
        self.engine.discard_gradients()

    def nll(self, prompts: list[Prompt]) -> dict[str, float]:
        """Return ``nll``, nats per token of the gold responses, and ``tokens``, their number."""
        budget = self._config.learner.micro_batch_tokens
        return gold_nll(self.engine, prompts, token_budget=budget)

    def publish_weights(self, lend: bool = False, shards: int = 1) -> tuple[Any, ...] | None:
        """Return the weights as (manifest, bytes) on rank 0, None elsewhere.

        The bytes are those of each tensor: a list of arrays, or ``shards`` of them
        (``learner.weights.cut``), which travel each by itself.

        With ``lend`` the bytes may be the live weights', for a caller that copies them before
        the next step; ``probe`` must have ended before it, too. Otherwise, and under ZeRO-3, which
        never has all of them, they are a copy; besides that no rank holds more than one gathered
        weight at a time.
        """
        failpoint("learner.publish")
        if self._rank > 0:
            self.engine.gather_weights()
            return None
        kind = WeightViews if lend and self._config.learner.zero_stage < 3 else WeightCopies
        weights = kind(self.engine.weight_specs())
        self.engine.gather_weights(weights.put)
        parts = weights.parts()
        self._sent = start_checksum(parts)  # beside what is done with them now
        return self._manifest(weights.specs, parts), *cut(parts, shards)

    def send_weights(
        self, call: Callable[[str, dict[str, Any]], None], transport: str, samplers: int
    ) -> WeightManifest:
        """Push by a CUDA transport of vLLM's, ``nccl`` or ``ipc``; for a learner of one rank.

        ``call(phase, payload)`` runs ``StudentSampler.transfer`` on all ``samplers``. Returns the
        manifest to accept the push by; no buffer travels. NOT RUN on a GPU.
        """
        assert self._world_size == 1, "several ranks push through the object store"
        if self._sender is None:
            nccl = transport == "nccl"
            self._sender = open_cuda_sender(
                lambda: self.engine.full_state_dict() or {},
                call,
                address=rendezvous.own_address(1 + samplers, self._address) if nccl else None,
                port=rendezvous.free_port() if nccl else None,
                samplers=samplers,
            )
        self._sender.send_weights()
        return self._manifest((), [])

    @torch.no_grad()
    def probe(self, published: object = None) -> WeightProbe:
        """Return what a sampler must say of the weights that were published, and are here still.

        ``published`` is what ``publish_weights`` answered, for who must say that it comes first.
        """
        ids = self._probe_ids()
        batch = collate([[Segment(ids[:1], ids[1:])]], Asked(("gold",)))
        logprobs_N = self.engine.score(batch.to(self.engine.device)).logprobs_N
        return WeightProbe(
            version=self.step,
            checksum=self._sent.result() if self._sent else "",
            logprobs=logprobs_N.float().cpu().numpy(),
            tolerance=_PROBE_TOLERANCE[self._config.learner.dtype],
        )

    def save_model(self, folder: str) -> None:
        """Write the model in Hugging Face layout (safetensors, config), atomically."""
        state = self.engine.full_state_dict()
        if state is not None:
            save_model(self.engine.scorer.model, state, Path(folder))
        self._barrier()

    def save(self, folder: str) -> None:
        """Write parameters, optimizer, schedule, step and random numbers below ``folder``.

        Raises CheckpointError when the disk refuses.
        """
        try:
            failpoint("learner.save")
            self.engine.save(Path(folder))
            failpoint("learner.saved")
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by the second
            raise CheckpointError(
                f"the learner's state cannot be written to {folder} ({_refusal(error, folder)}); "
                "make room, or set checkpoint.folder"
            ) from error

    def load(self, folder: str) -> None:
        """Restore what ``save`` wrote with the same ZeRO stage and, above 0, number of ranks."""
        self.engine.load(Path(folder))

    def close(self) -> None:
        """Leave the group and free what is held; safe to call twice."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        elif dist.is_initialized():  # joined, but the engine did not come up
            dist.destroy_process_group()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _manifest(
        self,
        tensors: tuple[TensorSpec, ...],
        parts: Sequence[np.ndarray],
    ) -> WeightManifest:
        return make_manifest(
            tensors,
            parts,
            version=self.step,
            probe_ids=self._probe_ids(),
        )

    def _probe_ids(self) -> np.ndarray:
        """Return a fixed pseudo-random sequence, (L,) int32."""
        config = self.engine.scorer.model.config.get_text_config()
        length = min(_PROBE_LENGTH, getattr(config, "max_position_embeddings", _PROBE_LENGTH))
        generator = np.random.default_rng(0)
        return generator.integers(config.vocab_size, size=length, dtype=np.int32)

    def _load_model(self) -> PreTrainedModel:
        student = self._config.student
        ACT2FN.update(gelu_new=GELUTanh)  # the same function, in one pass over memory, not in eight
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                self._source,
                dtype=torch.float32,
                revision=student.revision if self._source == student.model else None,
                trust_remote_code=student.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, in one sentence
            )
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DependencyError(
                f"the learner cannot load the model {self._source}: {reason} "
                "Give a folder with config.json and model.safetensors, or a hub name"
            ) from error
        model, report = cast(tuple[PreTrainedModel, dict], loaded)
        if report["missing_keys"]:
            # transformers would fill them with random numbers and go on.
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise DependencyError(
                f"the student {self._source} lacks weights ({missing}, ...); "
                "set student.model to a complete model in Hugging Face layout"
            )
        if report["mismatched_keys"]:
            tensor, stored, declared = min(report["mismatched_keys"])
            raise DependencyError(
                f"the student {self._source} holds {tensor} with shape {tuple(stored)}, and its "
                f"config.json makes it {tuple(declared)}; set student.model to a sound model"
            )
        disable_dropout(model)
        model.train()
        if self._config.learner.activation_checkpointing:
            model.gradient_checkpointing_enable()
        return model

    def _barrier(self) -> None:
        if self._world_size > 1:
            dist.barrier()


def _refusal(error: OSError | RuntimeError, folder: str) -> str:
    """Say why a disk refused; of a full one torch says only where in its archive it noticed."""
    if isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < _FULL_BYTES:
        return os.strerror(errno.ENOSPC)
    return str(error).splitlines()[0]


def _backend() -> str:
    on_gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    return "nccl" if on_gpu else "gloo"
