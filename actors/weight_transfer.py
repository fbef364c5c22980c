"""The sampler's end of vLLM's weight-transfer protocol.

vLLM drives a push in four phases, ``init_weight_transfer_engine`` once and then
``start_weight_update`` → ``update_weights`` → ``finish_weight_update``, and leaves the transport
to a *weight-transfer engine*. It ships engines for CUDA (``nccl``, ``ipc``) and none for CPUs:
``ObjectStoreEngine`` is ours. Importing this module imports vLLM.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from actors.weights import byte_ranges
from configs.errors import WeightSyncError
from configs.wire import TensorSpec

OBJECT_STORE = "object_store"


@dataclass
class ObjectStoreInit(WeightTransferInitInfo):
    """Nothing is agreed on beforehand: every update describes itself."""


@dataclass
class ObjectStoreUpdate(WeightTransferUpdateInfo):
    """All tensors of one push."""

    tensors: tuple[TensorSpec, ...]
    buffer: np.ndarray
    """Flat uint8, a zero-copy view of Ray's object store or any other array."""


class ObjectStoreEngine(WeightTransferEngine[ObjectStoreInit, ObjectStoreUpdate]):
    """Loads weights from a byte buffer in this process's memory; works on every device."""

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate
    supports_draft_weight_update = False

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        """Do nothing: the buffer comes with the update."""

    def start_weight_update(self) -> None:
        """Bring the model back into checkpoint layout.

        On a CPU linear layers are re-packed after loading, and what is re-packed cannot be
        loaded into.
        """
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load one push; on failure leave a model that a later push can repair.

        Overrides the base class, which synchronises an accelerator that may not exist.
        Raises what the model's loader raises, or WeightSyncError.
        """
        complete = False
        try:
            self.receive_weights(self.parse_update_info(update_info))
            complete = True
        finally:
            if not complete:
                self.finish_weight_update()

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        """Load every tensor; raises WeightSyncError where a parameter got none."""
        # With duplicates: while loading, a tied head is a parameter of its own.
        parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        model: Any = self.model
        loaded = model.load_weights(_views(update_info))
        for name in sorted(parameters - set(loaded)):
            raise WeightSyncError(
                f"the weight push did not reach the sampler's parameter {name}; "
                "this model family is not supported by the weight push"
            )

    def finish_weight_update(self) -> None:
        """Re-pack the layers and put them where the running engine looks for them."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Do nothing: nothing is held between pushes."""


def register() -> None:
    """Make ``ObjectStoreEngine`` known to vLLM, once in a process."""
    if OBJECT_STORE not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(OBJECT_STORE, ObjectStoreEngine)


def _views(update: ObjectStoreUpdate) -> Iterator[tuple[str, torch.Tensor]]:
    with warnings.catch_warnings():
        # Ray's arrays are read-only and torch has no such tensors; the loaders only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        whole = torch.from_numpy(update.buffer)
    for spec, where in byte_ranges(update.tensors):
        yield spec.name, whole[where].view(getattr(torch, spec.dtype)).view(spec.shape)
