"""The checksum of a weight push: both of its halves take it, and neither knows the other."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import xxhash

_BESIDE = ThreadPoolExecutor(1, thread_name_prefix="checksum")


def checksum(parts: Iterable[np.ndarray]) -> str:
    """Return 32 hexadecimal digits (xxh3) over contiguous uint8 arrays, however they are cut."""
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part.data)
    return digest.hexdigest()


def start_checksum(parts: Sequence[np.ndarray]) -> Future[str]:
    """Take the checksum in a thread of its own, beside what else is done with ``parts``."""
    return _BESIDE.submit(checksum, parts)
