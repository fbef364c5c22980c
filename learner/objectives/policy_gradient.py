"""What objectives that follow a policy gradient share: the importance-weighted surrogate.

Axes: ``B`` sequence, ``T`` response token, 0 at padding.
"""

from torch import Tensor


def surrogate(
    log_ratio_BT: Tensor, advantage_BT: Tensor, *, clip: float | None, share_BT: Tensor
) -> Tensor:
    """Return the step's mean of -rho A, rho = exp(log ratio) carrying the gradient.

    With ``clip`` it is -min(rho A, clip(rho, 1 - clip, 1 + clip) A), PPO's: an action that is
    already favoured or shunned enough has no gradient. ``share_BT`` is each token's share in the
    mean over the whole step, 1 / (|y| sequences), and 0 at padding.
    """
    assert log_ratio_BT.shape == advantage_BT.shape == share_BT.shape
    assert not advantage_BT.requires_grad
    ratio_BT = log_ratio_BT.exp()
    gain_BT = ratio_BT * advantage_BT
    if clip is not None:
        gain_BT = gain_BT.minimum(ratio_BT.clamp(1 - clip, 1 + clip) * advantage_BT)
    return -(gain_BT * share_BT).sum()
