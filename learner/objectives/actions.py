"""Which token a model would take at a state: its likeliest, or one drawn from it.

Axes: ``N`` state, ``V`` tokens to choose from.
"""

import torch
from torch import Tensor


@torch.no_grad()
def choose(logprobs_NV: Tensor, uniform_N: Tensor | None) -> Tensor:
    """Return (N,) int64, the chosen column of each row of log-probabilities.

    ``uniform_N`` (N,) float64 in [0, 1) draws by the inverse of the cumulative distribution,
    after normalising; the same number always draws the same token. None: the likeliest one, the
    first of equals. A probability of 0 (minus infinity) is never drawn.
    """
    if uniform_N is None:
        return logprobs_NV.argmax(-1)
    cumulative_NV = logprobs_NV.double().exp().cumsum(-1)
    threshold_N = uniform_N.double()[:, None] * cumulative_NV[:, -1:]
    chosen_N = torch.searchsorted(cumulative_NV, threshold_N, right=True)[:, 0]
    return chosen_N.clamp(max=logprobs_NV.shape[-1] - 1)
