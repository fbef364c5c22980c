"""The DeepSpeed engine: the only file that imports deepspeed.

Gradients of all micro-batches accumulate without any scaling of DeepSpeed's, because the
step's loss is already normalised over the whole batch; DeepSpeed averages gradients over
ranks, so each rank's share is multiplied by the number of ranks.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.runtime.zero.partition_parameters import GatheredParameters
from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor, nn

from configs.learner import LearnerConfig
from configs.wire import TensorSpec
from learner.batch import MicroBatch
from learner.checkpoint import SafeCheckpointEngine
from learner.logprobs import ResponseScorer
from learner.optimizer import adamw, schedule
from learner.response_head import StudentScores

_PERSISTENT_PARAMETERS = 10_000
"""ZeRO-3 keeps parameters with fewer elements on every rank: norms and biases."""

_ONE_LAYER_AT_A_TIME = {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0}
"""ZeRO-3 on CPUs, where gathering ahead overlaps with nothing. DeepSpeed's own settings, which GPUs
get, keep up to 1e9 gathered values on every rank, and after a forward without a backward, as the
probe's, until the next step."""

# For collectives between processes of one machine DeepSpeed would compile a helper: a minute at the
# first start, a compiler that must be there, and a lock on which, once its owner was killed, every
# later run waits for ever. Gloo does without.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

_STATE = [ZeroStageEnum, LossScaler, fragment_address]
"""The classes of DeepSpeed's, beside tensors and plain values, in a checkpoint of its."""


class DeepSpeedEngine:
    """A ``ResponseScorer`` under DeepSpeed: forward, backward, step, whole weights."""

    def __init__(self, scorer: ResponseScorer, config: LearnerConfig) -> None:
        """Shard and optimise ``scorer``; torch.distributed is up already (collective)."""
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.config = config
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        initialize: Any = deepspeed.initialize  # its annotations refuse torch's own scheduler
        engine, _, _, _ = initialize(
            model=scorer,
            optimizer=adamw(scorer, config),
            lr_scheduler=lambda optimizer: schedule(optimizer, config),
            config=_deepspeed_config(config, self.world_size),
            dist_init_required=False,
        )
        self._engine: Any = engine
        self._engine.checkpoint_engine = SafeCheckpointEngine(engine.checkpoint_engine, _STATE)
        self.scorer = scorer
        self.device = torch.device(engine.device)
        self._nonfinite = torch.zeros((), dtype=torch.bool, device=self.device)
        self._watch_gradients()

    @property
    def step(self) -> int:
        """Optimizer steps made so far."""
        return self._engine.global_steps

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next optimizer step."""
        return self._engine.get_lr()[0]

    def score(self, batch: MicroBatch) -> StudentScores:
        """Return log q of the response tokens and of whatever else the batch asks."""
        return StudentScores(*self._engine(**batch.inputs))

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of this rank's share of the loss; reduce over ranks at ``last``."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)

    def gradients_are_finite(self) -> bool:
        """Return whether every gradient since the last step was finite, on every rank."""
        return not self.all_reduce(self._nonfinite.double()[None], maximum=True).item()

    def optimizer_step(self) -> float:
        """Clip, update the parameters once, and return the gradient norm before clipping."""
        norm = None
        if not self._engine.zero_optimization() and self.config.dtype == "float32":
            parameters = self.scorer.parameters()
            norm = nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def all_reduce(self, values: Tensor, *, maximum: bool = False) -> Tensor:
        """Sum (or take the maximum of) a vector over ranks."""
        if self.world_size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX if maximum else dist.ReduceOp.SUM)
        return values

    def discard_gradients(self) -> None:
        """Forget what was accumulated since the last step; the weights stay (collective).

        ZeRO's optimizers hold sums besides ``.grad``, to which the next backward would add; what
        is done here is what they do themselves after an overflow.
        """
        self._nonfinite.zero_()
        self._engine.zero_grad()
        optimizer = self._engine.optimizer
        if not self._engine.zero_optimization():
            return
        optimizer.zero_grad()
        for name in ("averaged_gradients", "all_grad_tensors"):  # each stage has its own
            sums = getattr(optimizer, name, {})
            sums.update(dict.fromkeys(sums))
        optimizer.micro_step_id = 0 if self.config.zero_stage == 3 else INITIAL_MICRO_STEP_ID

    def weight_specs(self) -> list[TensorSpec]:
        """Return name, whole shape and dtype of every weight, of a tied head as a second name."""
        return [
            TensorSpec(
                name,
                tuple(getattr(tensor, "ds_shape", tensor.shape)),  # of a shard the shape is empty
                str(tensor.dtype).removeprefix("torch."),
                same_as=None if name == names[0] else names[0],
            )
            for tensor, names in self._named_weights()
            for name in names
        ]

    def gather_weights(self, take: Callable[[list[str], Tensor], None] | None = None) -> None:
        """Show ``take`` every weight, whole, with all of its names (collective).

        Each is shown once, and under ZeRO-3 is whole during that call only: copy what is to stay.
        A rank without ``take`` does its part for the others.
        """
        for tensor, names in self._named_weights():
            with GatheredParameters([tensor]):
                if take is not None:
                    take(names, tensor.detach())

    def full_state_dict(self) -> dict[str, Tensor] | None:
        """Return the model's whole weights by Hugging Face name, on rank 0; None elsewhere
        (collective).

        A tied output head is listed under its own name too, sharing the embedding's tensor.
        Under ZeRO-3 the tensors are copies; otherwise the live ones: copy them before the next
        step.
        """
        state: dict[str, Tensor] = {}

        def keep(names: list[str], tensor: Tensor) -> None:
            whole = tensor.clone() if self.config.zero_stage == 3 else tensor
            state.update(dict.fromkeys(names, whole))

        self.gather_weights(keep if self.rank == 0 else None)
        return state if self.rank == 0 else None

    def save(self, folder: Path) -> None:
        """Write the engine's whole state below ``folder`` (collective): parameters, optimizer,
        schedule, step and torch's random numbers.
        """
        state = {"torch_rng": torch.get_rng_state()}
        self._engine.save_checkpoint(
            str(folder), tag="engine", client_state=state, save_latest=False
        )

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote; a sharded one with the same number of ranks (collective)."""
        _, state = self._engine.load_checkpoint(str(folder), tag="engine")
        torch.set_rng_state(state["torch_rng"].cpu())

    def close(self) -> None:
        """Free what DeepSpeed holds and leave the process group, so that another can start.

        DeepSpeed keeps process groups in globals of its own: torch's call would leave them
        stale, and a second engine of this process would fail on them.
        """
        self._engine.destroy()
        deepspeed.comm.destroy_process_group()

    def _named_weights(self) -> Iterable[tuple[Tensor, list[str]]]:
        """Return the model's own tensors, empty where they are sharded, with their names."""
        named: dict[Tensor, list[str]] = {}
        for name, tensor in self.scorer.model.state_dict(keep_vars=True).items():
            named.setdefault(tensor, []).append(name)
        return named.items()

    def _watch_gradients(self) -> None:
        """Notice non-finite gradients before they reach the optimizer, at every ZeRO stage.

        A sum is none, or infinite, where one of its terms is, and is one pass over memory.
        """

        def watch(gradient: Tensor) -> None:
            self._nonfinite |= ~gradient.sum(dtype=torch.float32).isfinite()

        for parameter in self.scorer.parameters():
            parameter.register_hook(watch)


def _deepspeed_config(config: LearnerConfig, ranks: int) -> dict[str, Any]:
    sharding: dict[str, Any] = {
        "stage": config.zero_stage,
        "stage3_param_persistence_threshold": _PERSISTENT_PARAMETERS,
    }
    accelerator: Any = get_accelerator()
    if accelerator.device_name() == "cpu":
        sharding |= _ONE_LAYER_AT_A_TIME
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": ranks,
        "gradient_clipping": config.max_grad_norm,
        "steps_per_print": 1 << 62,
        "zero_optimization": sharding,
    }
    if config.dtype == "bfloat16":
        # Plain data parallelism in bf16 would accumulate gradients, and update weights, in bf16;
        # ZeRO-1 keeps both in fp32 and gives the same result on one rank.
        sharding["stage"] = max(1, config.zero_stage)
        settings["bf16"] = {"enabled": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings
