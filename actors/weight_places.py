"""Where each sent tensor's values live in a running vLLM model, and how to write them there.

A parameter either stays as it was loaded, and is written in place, or its layer keeps a re-packed
copy and nothing else (linear layers on a CPU): that is made anew, straight from what was sent.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.attention import Attention, is_deferred_attention_layer
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.platforms import current_platform

from actors.weight_recorder import LoadRecorder, Move, Region, Target

Sent = Mapping[str, Tensor]
_PACKING = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)


class _Place(Protocol):
    def write(self, sent: Sent) -> None: ...

    def holds(self, sent: Sent) -> bool: ...


class WeightPlaces:
    """Every place of one model. Made of a recorded load, which has to have come first."""

    def __init__(self, places: list[_Place], repacked: list[Any]) -> None:
        """Know the ``places``, and the layers that ``repacked`` them besides."""
        self._places = places
        self._repacked = repacked

    @classmethod
    def of(cls, model: nn.Module, recorder: LoadRecorder) -> "WeightPlaces | None":
        """Return the places of a recorded load; None where not all are known to be plain."""
        targets = _once(recorder.targets)
        if not (current_platform.is_cpu() and recorder.is_whole and targets and _is_plain(model)):
            return None
        places = [_place(target) for target in targets]
        known = [place for place in places if place is not None]
        repacked = [
            target.layer
            for target in recorder.targets
            if hasattr(target.layer, "cpu_linear") and _is_kept(target) and target.name == "weight"
        ]
        return cls(known, repacked) if len(known) == len(places) else None

    @torch.no_grad()
    def write(self, sent: Sent) -> None:
        """Bring a push into the model."""
        for place in self._places:
            place.write(sent)
        for layer in self._repacked:
            layer.cpu_linear = partial(_repack_first, layer)

    @torch.no_grad()
    def hold(self, sent: Sent) -> bool:
        """Whether all is as ``write`` would leave it, bit for bit. Where not, load again."""
        return all(place.holds(sent) for place in self._places)


class _Kept:
    """A parameter that is used as it was loaded."""

    def __init__(self, target: Target) -> None:
        self._parameter: Tensor = getattr(target.layer, target.name)
        self._moves = target.moves

    def write(self, sent: Sent) -> None:
        _copy(self._moves, sent, self._parameter.data)

    def holds(self, sent: Sent) -> bool:
        return all(
            _same_bits(move.here.within(self._parameter.data), move.there.within(sent[move.sent]))
            for move in self._moves
        )


class _Packed:
    """The weight of a linear layer that keeps it re-packed only."""

    def __init__(self, target: Target) -> None:
        self._layer: Any = target.layer
        self._target = target

    def write(self, sent: Sent) -> None:
        self._pack(self._loaded(sent))

    def holds(self, sent: Sent) -> bool:
        """Compare what the layer computes: what it keeps cannot be seen.

        The weight is spoiled after packing, to see that the layer keeps nothing of it.
        """
        weight = self._loaded(sent).clone()
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, weight.shape[1], generator=generator).to(weight.dtype)
        before = self._layer.cpu_linear(x, self._layer.weight, None).clone()
        self._pack(weight)
        weight.fill_(torch.nan)
        return _same_bits(before, self._layer.cpu_linear(x, self._layer.weight, None))

    def _loaded(self, sent: Sent) -> Tensor:
        """Return the weight as the loader would have it: what was sent itself, if it is that."""
        whole, moves = self._target.whole, self._target.moves
        if len(moves) == 1 and sent[moves[0].sent].dtype == self._target.dtype:
            return moves[0].there.within(sent[moves[0].sent])
        weight = torch.empty_strided(whole.size, whole.stride, dtype=self._target.dtype)
        _copy(moves, sent, weight)
        return weight

    def _pack(self, weight: Tensor) -> None:
        layer, kept = self._layer, self._layer.weight
        if weight.dtype != torch.float32:  # what packs for Intel's matrix registers takes no view
            weight = weight.contiguous()
        layer.cpu_linear = None  # first: what it frees is what the new one takes
        layer.weight = nn.Parameter(weight, requires_grad=False)
        try:
            layer.quant_method.process_weights_after_loading(layer)
        finally:
            layer.weight = kept


def _repack_first(layer: Any, *arguments: Any) -> Tensor:
    """Compute with a layer's weight, of which it has to make its own copy first.

    An embedding has such a copy, too, and never uses it: there it is never made.
    """
    layer.quant_method.process_weights_after_loading(layer)
    return layer.cpu_linear(*arguments)


def _place(target: Target) -> _Place | None:
    if _is_kept(target):
        return _Kept(target)
    is_weight = target.name == "weight" and hasattr(target.layer, "cpu_linear")
    packs = is_weight and not getattr(target.layer, target.name).numel()
    return _Packed(target) if packs and _is_whole(target) else None


def _once(targets: list[Target]) -> list[Target]:
    """Leave out the second of two layers that share a parameter: a head tied to its embedding.

    Returns none at all where the two were sent different tensors.
    """
    found: dict[int, Target] = {}
    for target in targets:
        first = found.setdefault(id(getattr(target.layer, target.name)), target)
        if first.moves != target.moves:
            return []
    return list(found.values())


def _is_kept(target: Target) -> bool:
    parameter: Tensor = getattr(target.layer, target.name)
    return (tuple(parameter.shape), parameter.stride()) == target.whole[:2]


def _is_whole(target: Target) -> bool:
    """Whether the moves fill a parameter, side by side along its first axis or at once."""
    filled: Region | None = target.moves[0].here
    for move in target.moves[1:]:
        filled = filled and filled.joined(move.here)
    return filled == target.whole


def _is_plain(model: nn.Module) -> bool:
    """Whether nothing but the known re-packing of layers follows a load."""
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if isinstance(method, QuantizeMethodBase) and type(method) not in _PACKING:
            return False
        if is_deferred_attention_layer(layer) and type(layer) is not Attention:
            return False
    return not hasattr(model, "process_weights_after_loading")


def _copy(moves: list[Move], sent: Sent, to: Tensor) -> None:
    for move in moves:
        move.here.within(to).copy_(move.there.within(sent[move.sent]))


def _same_bits(ours: Tensor, theirs: Tensor) -> bool:
    ours, theirs = ours.contiguous(), theirs.to(ours.dtype).contiguous()
    return torch.equal(ours.view(-1).view(torch.uint8), theirs.view(-1).view(torch.uint8))
