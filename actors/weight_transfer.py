"""The sampler's end of vLLM's weight-transfer protocol.

vLLM drives a push in four phases, ``init_weight_transfer_engine`` once and then
``start_weight_update`` → ``update_weights`` → ``finish_weight_update``, and leaves the transport
to a *weight-transfer engine*. It ships engines for CUDA (``nccl``, ``ipc``) and none for CPUs:
``ObjectStoreEngine`` is ours. Importing this module imports vLLM.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from actors.weight_places import WeightPlaces
from actors.weight_recorder import LoadRecorder
from actors.weights import by_name
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
    parts: Sequence[np.ndarray]
    """Flat uint8, zero-copy views of Ray's object store or any other arrays."""


class ObjectStoreEngine(WeightTransferEngine[ObjectStoreInit, ObjectStoreUpdate]):
    """Loads weights from bytes in this process's memory; works on every device.

    The first push goes through vLLM's loader, which allocates, loads, re-packs and copies again.
    What it did with every tensor is written down; where doing just that leaves the model as the
    loader left it, later pushes of the same tensors do just that.
    """

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate
    supports_draft_weight_update = False
    _places: WeightPlaces | None = None
    _seen: tuple[TensorSpec, ...] | None = None
    """Of which tensors ``_places`` tells; with no places, they take the loader's way for ever."""

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        """Do nothing: the bytes come with the update."""

    def start_weight_update(self) -> None:
        """Do nothing: an update is a whole push."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load one push; on failure leave a model that a later push can repair.

        Overrides the base class, which synchronises an accelerator that may not exist.
        Raises what the model's loader raises, or WeightSyncError.
        """
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        """Load every tensor; raises WeightSyncError where a parameter got none."""
        sent = _tensors(update_info)
        if self._seen == update_info.tensors and self._places is not None:
            self._places.write(sent)
        elif self._seen == update_info.tensors:
            self._load(sent)
        else:
            self._seen = None
            self._places = self._learn(sent)
            self._seen = update_info.tensors

    def finish_weight_update(self) -> None:
        """Do nothing: see ``start_weight_update``."""

    def shutdown(self) -> None:
        """Do nothing: nothing is held between pushes."""

    def _learn(self, sent: dict[str, Tensor]) -> WeightPlaces | None:
        """Load by the loader's way; return the short one where it is shown to be the same."""
        recorder = LoadRecorder(sent)
        self._load(sent, recorder)
        places = WeightPlaces.of(self.model, recorder)
        if places is None or places.hold(sent):
            return places
        self._load(sent)
        return None

    def _load(self, sent: dict[str, Tensor], recorder: LoadRecorder | None = None) -> None:
        """Bring the model into checkpoint layout, load, re-pack.

        On a CPU linear layers are re-packed after loading, and what is re-packed cannot be
        loaded into.
        """
        model: Any = self.model
        initialize_layerwise_reload(model)
        try:
            # With duplicates: while loading, a tied head is a parameter of its own.
            parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            with recorder.watch(model) if recorder else nullcontext():
                loaded = model.load_weights(sent.items())
        finally:
            finalize_layerwise_reload(model, self.model_config)
        for name in sorted(parameters - set(loaded)):
            raise WeightSyncError(
                f"the weight push did not reach the sampler's parameter {name}; "
                "this model family is not supported by the weight push"
            )


def register() -> None:
    """Make ``ObjectStoreEngine`` known to vLLM, once in a process."""
    if OBJECT_STORE not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(OBJECT_STORE, ObjectStoreEngine)


def _tensors(update: ObjectStoreUpdate) -> dict[str, Tensor]:
    """Return views of the bytes by name; a second name has the very tensor of the first."""
    sent: dict[str, Tensor] = {}
    with warnings.catch_warnings():
        # Ray's arrays are read-only and torch has no such tensors; the loaders only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for spec, part in by_name(update.tensors, update.parts):
            if spec.same_as:
                sent[spec.name] = sent[spec.same_as]
            else:
                flat = torch.from_numpy(part).view(getattr(torch, spec.dtype))
                sent[spec.name] = flat.view(spec.shape)
    return sent
