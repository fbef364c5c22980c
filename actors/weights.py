"""The receiving half of a weight push: what is checked before and after a load.

A push is the bytes of every tensor and a ``WeightManifest``. It counts only when all of this holds:
the bytes are those that were sent, the tensors are those that the model has (the output head
included, also where it is tied to the embedding), the version is not an older one, and the
engine then computes the learner's log-probabilities of the probe: it does so in the same steps in
which it draws for the first time, and nothing that it draws is used before they were compared.
The sending half is ``learner/weights.py``.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from configs.errors import WeightSyncError
from configs.wire import TensorSpec, WeightManifest, WeightProbe, WeightProof

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one value of every dtype that travels."""
_NOTHING = np.empty(0, np.uint8)


def check_version(manifest: WeightManifest, *, held: int) -> None:
    """Raise WeightSyncError when the push is older than version ``held``.

    The same version may be pushed again: a retry changes nothing. Whoever means to bring an older
    one back (a snapshot that negatives are drawn from) does not ask.
    """
    if manifest.version < held:
        raise WeightSyncError(
            f"weight push has version {manifest.version}, older than version {held} in the "
            "sampler; restart the samplers when the learner goes back to an earlier step"
        )


def check_tensors(manifest: WeightManifest, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightSyncError unless the push has exactly the tensors and shapes ``expected``.

    A tied output head is expected under its own name too: an engine may hold a copy of it, and
    would go on with the old one.
    """
    sent = {spec.name: tuple(spec.shape) for spec in manifest.tensors}
    if len(sent) != len(manifest.tensors):
        raise WeightSyncError(f"{_push(manifest)} names a tensor twice")
    for name in sorted(expected.keys() - sent.keys()):
        raise WeightSyncError(
            f"{_push(manifest)} lacks tensor {name}; send the whole state_dict(), in which a "
            "tied output head has a name of its own"
        )
    for name in sorted(sent.keys() - expected.keys()):
        raise WeightSyncError(
            f"{_push(manifest)} has tensor {name}, which the sampler's model has not; "
            "learner and sampler must be made from the same configuration"
        )
    for name, shape in expected.items():
        if sent[name] != tuple(shape):
            raise WeightSyncError(
                f"{_push(manifest)} has {name} with shape {sent[name]}, and the sampler's "
                f"model with {tuple(shape)}; both must be made from the same configuration"
            )


def joined(manifest: WeightManifest, shards: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Return each tensor's bytes; a tensor that was cut is put together in new memory.

    ``shards`` are what ``learner.weights.cut`` made, in its order; ``check_parts`` says whether all
    is there.
    """
    pieces = deque(piece for shard in shards for piece in shard)
    parts: list[np.ndarray] = []
    for spec in manifest.tensors:
        if spec.same_as is None:
            missing, taken = math.prod(spec.shape) * ITEMSIZE.get(spec.dtype, 0), []
            while missing > 0 and pieces:
                taken.append(pieces.popleft())
                missing -= taken[-1].nbytes
            parts.append(taken[0] if len(taken) == 1 else np.concatenate([_NOTHING, *taken]))
    return [*parts, *pieces]


def check_parts(manifest: WeightManifest, parts: Sequence[np.ndarray]) -> None:
    """Raise WeightSyncError unless ``parts`` are as many bytes as the manifest's tensors take."""
    for part in parts:
        if part.dtype != np.uint8 or part.ndim != 1 or not part.flags.c_contiguous:
            raise WeightSyncError(
                f"{_push(manifest)} came as {part.dtype} of shape {part.shape}, "
                "not as flat arrays of bytes; send what publish_weights returns"
            )
    _check_sizes(manifest, [part.nbytes for part in parts])


def _check_sizes(manifest: WeightManifest, sizes: Sequence[int]) -> None:
    named: dict[str, TensorSpec] = {}
    for spec in manifest.tensors:
        if spec.dtype not in ITEMSIZE:
            raise WeightSyncError(
                f"{_push(manifest)} has {spec.name} as {spec.dtype}; "
                f"only {', '.join(ITEMSIZE)} travel"
            )
        if spec.same_as is None:
            named[spec.name] = spec
        elif named.get(spec.same_as, spec)[1:3] != spec[1:3] or spec.same_as not in named:
            raise WeightSyncError(
                f"{_push(manifest)} has {spec.name} as another name of {spec.same_as}, which "
                "is not an earlier tensor of its shape; send what publish_weights returns"
            )
    expected = [_nbytes(spec) for spec in named.values()]
    if expected != list(sizes) or manifest.nbytes != sum(sizes):
        raise WeightSyncError(
            f"{_push(manifest)} came with {sum(sizes)} bytes in {len(sizes)} parts, its manifest "
            f"says {manifest.nbytes} and its {len(expected)} tensors take {sum(expected)}; "
            "push again"
        )


def check_proof(probe: WeightProbe, proof: WeightProof, sampler: str) -> float:
    """Return the largest difference, nats, between what learner and sampler make of the probe.

    Raises WeightSyncError when other bytes came than were sent, or when the difference exceeds
    the probe's tolerance: then some layer holds other weights than the learner.
    """
    assert proof.version == probe.version, "a proof is held against its own weights' probe"
    if proof.checksum != probe.checksum:
        raise WeightSyncError(
            f"weight push of version {probe.version} was damaged on its way to {sampler}: "
            f"checksum {proof.checksum}, sent as {probe.checksum}; push again"
        )
    difference = float(np.abs(proof.logprobs - probe.logprobs[: len(proof.logprobs)]).max())
    if math.isnan(difference) or difference > probe.tolerance:
        raise WeightSyncError(
            f"weight push of version {probe.version} is not proved: {sampler} and the learner "
            f"differ by {difference:.3g} nats on the probe, more than {probe.tolerance:.3g}; a "
            "layer holds other weights (a stale output head?), or the two compute in different "
            "precision"
        )
    return difference


def by_name(
    tensors: Sequence[TensorSpec], parts: Sequence[np.ndarray]
) -> Iterator[tuple[TensorSpec, np.ndarray]]:
    """Yield with every tensor its bytes; those of a second name are its first's."""
    of: dict[str, np.ndarray] = {}
    left = iter(parts)
    for spec in tensors:
        of[spec.name] = next(left) if spec.same_as is None else of[spec.same_as]
        yield spec, of[spec.name]


def _nbytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * ITEMSIZE[spec.dtype]


def _push(manifest: WeightManifest) -> str:
    return f"weight push of version {manifest.version}"
