"""Distillation token by token: a divergence at every state of given responses, averaged.

Axes: ``B`` sequence, ``T`` response token, 0 at padding.
"""

from torch import Tensor


def distillation(
    divergence_BT: Tensor, student_BT: Tensor, *, nll_weight: float, share_BT: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return (1 - w) mean_i D_i + w mean_i -log q(y_i), the mean over the step's sequences.

    ``divergence_BT`` is D at every state, nats (``token_divergences.py``); ``student_BT`` log q of
    the tokens. ``share_BT`` is each token's share in the mean over the whole step,
    1 / (|y| sequences), and 0 at padding: tokens are averaged in their sequence, then sequences,
    and shares of micro-batches and ranks add up.

    w is ``nll_weight``; KD often halves the two. Statistics: ``loss_divergence``, and
    ``loss_nll`` where it has a weight.
    """
    assert divergence_BT.shape == student_BT.shape == share_BT.shape and 0 <= nll_weight <= 1
    divergence = (divergence_BT * share_BT).sum()
    if nll_weight == 0:
        return divergence, {"loss_divergence": divergence.detach()}
    nll = -(student_BT * share_BT).sum()
    loss = (1 - nll_weight) * divergence + nll_weight * nll
    return loss, {"loss_divergence": divergence.detach(), "loss_nll": nll.detach()}
