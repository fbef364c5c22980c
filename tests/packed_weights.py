"""The content of a weight push, made of a state dict as the learner makes it of its shards."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from configs.wire import TensorSpec
from learner.weights import WeightCopies


def packed_weights(
    state: Mapping[str, Tensor],
) -> tuple[tuple[TensorSpec, ...], list[np.ndarray]]:
    """Return (specs, bytes of each) of all tensors of ``state``; of one memory the bytes of one."""
    names: dict[int, list[str]] = {}
    for name, tensor in state.items():
        names.setdefault(tensor.data_ptr(), []).append(name)
    weights = WeightCopies(
        TensorSpec(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            same_as=None if (first := names[tensor.data_ptr()][0]) == name else first,
        )
        for name, tensor in state.items()
    )
    for same in names.values():
        weights.put(same, state[same[0]])
    return weights.specs, weights.parts()
