"""The content of a weight push, made of a state dict as the learner makes it of its shards."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from configs.wire import TensorSpec
from learner.weights import WeightBuffer


def packed_weights(state: Mapping[str, Tensor]) -> tuple[tuple[TensorSpec, ...], np.ndarray]:
    """Return (specs, buffer) of all tensors of ``state``."""
    weights = WeightBuffer(
        TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in state.items()
    )
    for name, tensor in state.items():
        weights.put([name], tensor)
    return weights.packed()
