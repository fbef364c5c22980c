"""What vLLM's loader does with each sent tensor, written down while it does it.

Whatever a loader calls it, loading is copying: a part of a sent tensor, transposed perhaps, to a
part of a layer's parameter. Torch tells of every operation below the loaders, so that no model
family has to be known here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Region(NamedTuple):
    """A part of a tensor's memory."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, view: Tensor) -> "Region":
        """Return where ``view`` lies in its memory."""
        return cls(tuple(view.shape), view.stride(), int(view.storage_offset()))

    def within(self, tensor: Tensor) -> Tensor:
        """Return the same part of another tensor's memory."""
        return tensor.as_strided(self.size, self.stride, self.offset)

    def joined(self, other: "Region") -> "Region | None":
        """Return both as one, where ``other`` goes on along the first axis where this one ends."""
        if not self.size or (self.size[1:], self.stride) != (other.size[1:], other.stride):
            return None
        if self.offset + self.size[0] * self.stride[0] != other.offset:
            return None
        return self._replace(size=(self.size[0] + other.size[0], *self.size[1:]))


class Move(NamedTuple):
    """One copy: that part of the sent tensor goes to this part of the parameter."""

    sent: str
    there: Region
    here: Region

    def joined(self, other: "Move") -> "Move | None":
        """Return both as one: q, k and v may come one by one although they are sent as one."""
        there, here = self.there.joined(other.there), self.here.joined(other.here)
        if self.sent != other.sent or there is None or here is None:
            return None
        return Move(self.sent, there, here)


class Target(NamedTuple):
    """A parameter or buffer of a layer, as it is while its model is being loaded."""

    layer: nn.Module
    name: str
    whole: Region
    dtype: torch.dtype
    moves: list[Move]


class LoadRecorder:
    """Records a load: the moves of which it consists."""

    def __init__(self, sent: Mapping[str, Tensor]) -> None:
        """Know the ``sent`` tensors by their memory; of two names one is enough."""
        self._sent = {_memory(tensor): name for name, tensor in sent.items()}
        self._kept = list(sent.values())  # a freed memory's name may be given again
        self._targets: dict[int, Target] = {}
        self._is_plain = True

    @property
    def targets(self) -> list[Target]:
        """Everything that something was copied to, in the fewest moves."""
        found = (target for target in self._targets.values() if target.moves)
        return [target._replace(moves=_fewest(target.moves)) for target in found]

    @property
    def is_whole(self) -> bool:
        """Whether every sent tensor went somewhere, and all of it by plain copies."""
        moved = {move.sent for target in self.targets for move in target.moves}
        return self._is_plain and moved == set(self._sent.values())

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Record what is loaded into ``model``, which is in the layout of its checkpoint."""
        for layer in model.modules():
            there = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
            for name, tensor in there:
                target = Target(layer, name, Region.of(tensor), tensor.dtype, [])
                self._targets[_memory(tensor)] = target
                self._kept.append(tensor)
        with _Watch(self):
            yield

    def saw(self, function: Any, changed: Tensor, others: tuple[Any, ...]) -> None:
        """Note an operation that changes memory in place."""
        target = self._targets.get(_memory(changed))
        if target is None or function is torch.ops.aten.fill_.Scalar:  # rows that only pad
            return
        source = others[0] if others and isinstance(others[0], Tensor) else None
        if function is not torch.ops.aten.copy_.default or source is None:
            self._is_plain = False
        elif _memory(source) in self._sent:
            name = self._sent[_memory(source)]
            move = Move(name, Region.of(source.expand_as(changed)), Region.of(changed))
            if move not in target.moves:  # loaders are called twice, the first time to count
                target.moves.append(move)
        elif _memory(source) != _memory(changed):
            self._is_plain = False


class _Watch(TorchDispatchMode):
    def __init__(self, recorder: LoadRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func._schema.is_mutable and args and isinstance(args[0], Tensor):
            self._recorder.saw(func, args[0], args[1:])
        return func(*args, **(kwargs or {}))


def _fewest(moves: list[Move]) -> list[Move]:
    first, *others = sorted(moves, key=lambda move: move.here.offset)
    done = [first]
    for move in others:
        joined = done[-1].joined(move)
        if joined is None:
            done.append(move)
        else:
            done[-1] = joined
    return done


def _memory(tensor: Tensor) -> int:
    """Return what all views of one memory share, also where it has no address (``meta``)."""
    return tensor.untyped_storage()._cdata
