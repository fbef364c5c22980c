"""The sending half of a weight push: every tensor's bytes, and the manifest that describes them.

Send everything that a model's ``state_dict()`` names, in which a tied output head has a name of
its own: vLLM keeps a re-packed copy of the head on a CPU, and one that is not named stays stale.
The receiving half is ``actors/weights.py``.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from configs.wire import TensorSpec, WeightManifest

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cut(parts: Iterable[np.ndarray], count: int) -> list[list[np.ndarray]]:
    """Cut flat arrays of bytes into ``count`` shards of even size, without a copy.

    The last ones may be smaller, or empty. ``actors.weights.joined`` puts them together again.
    """
    parts = list(parts)
    size = max(1, -(-sum(part.nbytes for part in parts) // count))
    shards: list[list[np.ndarray]] = [[] for _ in range(count)]
    place = 0
    for part in parts:
        rest = part
        while rest.size:
            which, filled = divmod(place, size)
            shards[which].append(rest[: size - filled])
            rest = rest[size - filled :]
            place += shards[which][-1].size
    return shards


class WeightCopies:
    """New memory for all tensors: laid out first, then filled one tensor after the other.

    So the sender holds one copy of all weights beside its own, and not two. Wide dtypes come
    first, so that each tensor is aligned without padding; otherwise the order is that of ``specs``.
    """

    def __init__(self, specs: Iterable[TensorSpec]) -> None:
        """Lay out; raises AssertionError for a dtype that does not travel."""
        self.specs = tuple(sorted(specs, key=lambda spec: -_dtype(spec).itemsize))
        own = [spec for spec in self.specs if spec.same_as is None]
        sizes = [math.prod(spec.shape) * _dtype(spec).itemsize for spec in own]
        whole = np.empty(sum(sizes), np.uint8)
        self._parts = np.split(whole, np.cumsum(sizes)[:-1]) if own else []
        self._missing = {
            spec.name: torch.from_numpy(part).view(_dtype(spec)).view(spec.shape)
            for spec, part in zip(own, self._parts, strict=True)
        }

    def put(self, names: Sequence[str], tensor: Tensor) -> None:
        """Copy ``tensor``, of which ``names`` are all the names, to its place."""
        self._missing.pop(names[0]).copy_(tensor.detach())

    def parts(self) -> list[np.ndarray]:
        """Return each tensor's bytes; raises AssertionError where a tensor was not put."""
        assert not self._missing, f"nothing was put for {', '.join(self._missing)}"
        return self._parts


class WeightViews:
    """The same without the copies: the tensors' own memory, for who copies it before it changes.

    Ray copies what a call returns into shared memory before the next call begins. What lies on a
    GPU, or not in one piece, is copied all the same.
    """

    def __init__(self, specs: Iterable[TensorSpec]) -> None:
        self.specs = tuple(specs)
        self._found: dict[str, np.ndarray] = {}

    def put(self, names: Sequence[str], tensor: Tensor) -> None:
        """Take ``tensor``, of which ``names`` are all the names."""
        flat = tensor.detach().cpu().contiguous().view(-1)
        self._found[names[0]] = flat.view(torch.uint8).numpy()

    def parts(self) -> list[np.ndarray]:
        """Return each tensor's bytes; raises KeyError where a tensor was not put."""
        return [self._found[spec.name] for spec in self.specs if spec.same_as is None]


def make_manifest(
    tensors: tuple[TensorSpec, ...],
    parts: Sequence[np.ndarray],
    *,
    version: int,
    probe_ids: np.ndarray,
) -> WeightManifest:
    """Describe a push of the bytes ``parts``.

    ``probe_ids`` is the (L,) int32 sequence over which learner and sampler must agree.
    """
    return WeightManifest(
        version=version,
        tensors=tensors,
        nbytes=sum(part.nbytes for part in parts),
        probe_ids=probe_ids,
    )


class _TensorMeta(NamedTuple):
    """What vLLM's senders ask of every tensor before they send any."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class StateDictSource:
    """A vLLM ``WeightSource`` over ``state_dict()``; vLLM's ``ModuleSource`` omits tied heads."""

    def __init__(self, state_dict: Callable[[], Mapping[str, Tensor]]) -> None:
        self._state_dict = state_dict

    def metadata(self) -> list[_TensorMeta]:
        """Return name, dtype and shape of every tensor, in the order of iteration."""
        return [_TensorMeta(name, t.dtype, tuple(t.shape)) for name, t in self]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the current weights; every pass is a fresh one."""
        for name, tensor in self._state_dict().items():
            yield name, tensor.detach()


class SamplerClient:
    """vLLM's ``VLLMWeightSyncClient`` over one function, so that the learner knows no Ray."""

    def __init__(self, call: Callable[[str, dict[str, Any]], None]) -> None:
        self._call = call

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Open the transport; on return every sampler has joined."""
        self._call("init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Begin a push."""
        self._call("start_weight_update", {})

    def update_weights(self, update_info: Any) -> None:
        """Receive what the learner sends at the same time."""
        self._call("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End a push; the version travels in the manifest instead."""
        self._call("finish_weight_update", {})


def open_cuda_sender(
    state_dict: Callable[[], Mapping[str, Tensor]],
    call: Callable[[str, dict[str, Any]], None],
    *,
    address: str | None = None,
    port: int | None = None,
    samplers: int = 1,
) -> Any:
    """Return vLLM's trainer-side engine; its ``send_weights()`` makes one whole push.

    ``call(phase, payload)`` must run ``StudentSampler.transfer`` on all samplers and wait. With
    ``address`` and a free ``port`` of the learner the transport is NCCL, with ``samplers`` GPU
    workers in all; without them it is CUDA IPC on a shared GPU. ``StudentSampler.accept`` follows.

    Written by vLLM 0.32's trainer-side API (``WeightTransferTrainerFactory``). NOT RUN on a GPU.
    """
    # The one place where the learner needs vLLM: both ends of a CUDA transport must be vLLM's.
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    if address is None or port is None:
        init_info = IPCTrainerInitInfo(rank=0)
    else:
        init_info = NCCLTrainerInitInfo(
            rank=0, master_address=address, master_port=port, world_size=1 + samplers
        )
    source: Any = StateDictSource(state_dict)
    return WeightTransferTrainerFactory.trainer_init(
        init_info, client=SamplerClient(call), source=source
    )


def _dtype(spec: TensorSpec) -> torch.dtype:
    assert spec.dtype in _DTYPES, f"{spec.name} is {spec.dtype}"
    return _DTYPES[spec.dtype]
