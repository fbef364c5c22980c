"""How like one response is to another: Rouge-L over token ids."""

import numpy as np

from configs.wire import Response


def likeness(response: Response, reference: Response) -> float:
    """Return the Rouge-L F-measure of two responses' tokens, 0 to 1.

    With the longest common subsequence (LCS) of m and n tokens, precision LCS/m and recall
    LCS/n have the harmonic mean 2 LCS / (m + n). The end-of-sequence token, which says
    nothing, is left out; two responses of nothing else are alike.
    """
    left_T, right_T = _said(response), _said(reference)
    tokens = len(left_T) + len(right_T)
    return 2 * common_subsequence(left_T, right_T) / tokens if tokens else 1.0


def common_subsequence(left_T: np.ndarray, right_T: np.ndarray) -> int:
    """Return the length of the longest common subsequence of two one-dimensional arrays.

    The usual table, a row at a time: c[i, j] = max(c[i-1, j], c[i-1, j-1] + (l_i == r_j),
    c[i, j-1]), whose last term is a running maximum.
    """
    lengths = np.zeros(len(right_T) + 1, np.int32)
    for token in left_T:
        extended = np.maximum(lengths[1:], lengths[:-1] + (right_T == token))
        lengths[1:] = np.maximum.accumulate(extended)
    return int(lengths[-1])


def _said(response: Response) -> np.ndarray:
    return response.ids_T[:-1] if response.finish_reason == "stop" else response.ids_T
