"""Seeded orders of a data set, one an epoch, each computable without those before it."""

import zlib

import numpy as np


class Permutations:
    """The permutation of ``range(size)`` for every epoch; the last one asked for is kept."""

    def __init__(self, size: int, *, seed: int, stream: str) -> None:
        """Streams of different names are independent under one seed."""
        self._size, self._seed, self._stream = size, seed, zlib.crc32(stream.encode())
        self._held: tuple[int, np.ndarray] | None = None

    def of(self, epoch: int) -> np.ndarray:
        """Return the epoch's order: (size,) int64."""
        if self._held is None or self._held[0] != epoch:
            rng = np.random.default_rng([self._seed, self._stream, epoch])
            self._held = (epoch, rng.permutation(self._size))
        return self._held[1]
