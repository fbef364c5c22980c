"""What a sampler checks of a push without an engine."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from actors.weights import (
    byte_ranges,
    check_probe,
    check_tensors,
    check_transport,
    check_version,
    checksum,
)
from configs.errors import WeightSyncError
from configs.wire import TensorSpec, WeightManifest

SHAPES = {"embed": (3, 2), "lm_head": (3, 2)}


def make_push() -> tuple[WeightManifest, np.ndarray]:
    buffer = np.arange(36, dtype=np.uint8)
    manifest = WeightManifest(
        version=7,
        tensors=(
            TensorSpec("embed", (3, 2), "float32"),
            TensorSpec("lm_head", (3, 2), "bfloat16"),
        ),
        nbytes=36,
        checksum=hashlib.blake2b(bytes(range(36)), digest_size=16).hexdigest(),
        probe_ids=np.array([1, 2, 3], np.int32),
        probe_logprobs=np.array([-1.0, -2.0], np.float32),
        probe_tolerance=1e-3,
    )
    return manifest, buffer


def test_an_intact_push_passes_every_check():
    manifest, buffer = make_push()
    check_version(manifest, held=6)
    check_tensors(manifest, SHAPES)
    check_transport(manifest, buffer)
    difference = check_probe(manifest, np.array([-1.0, -2.0005], np.float32))
    assert difference == pytest.approx(0.0005, rel=1e-3)


def test_the_checksum_is_blake2b_of_sixteen_bytes():
    empty = np.empty(0, np.uint8)
    assert checksum(empty) == "cae66941d9efbd404e4d88758ea67670"


def test_tensors_lie_one_after_the_other():
    manifest, _ = make_push()
    assert [where for _, where in byte_ranges(manifest.tensors)] == [slice(0, 24), slice(24, 36)]


def test_the_same_version_may_come_twice_and_an_older_one_may_not():
    manifest, _ = make_push()
    check_version(manifest, held=7)
    with pytest.raises(WeightSyncError, match="version 7, older than version 8"):
        check_version(manifest, held=8)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([("embed", (3, 2))], "lacks tensor lm_head"),
        ([("embed", (3, 2)), ("lm_head", (3, 2)), ("extra", (1,))], "has tensor extra"),
        ([("embed", (2, 3)), ("lm_head", (3, 2))], r"embed with shape \(2, 3\)"),
        ([("embed", (3, 2)), ("embed", (3, 2)), ("lm_head", (3, 2))], "names a tensor twice"),
    ],
)
def test_missing_unknown_and_misshapen_tensors_are_named(tensors, message):
    manifest, _ = make_push()
    specs = tuple(TensorSpec(name, shape, "float32") for name, shape in tensors)
    with pytest.raises(WeightSyncError, match=message):
        check_tensors(replace(manifest, tensors=specs), SHAPES)


@pytest.mark.parametrize("byte", [0, 17, 35])
def test_a_flipped_bit_anywhere_is_found(byte):
    manifest, buffer = make_push()
    buffer[byte] ^= 1
    with pytest.raises(WeightSyncError, match="damaged on its way"):
        check_transport(manifest, buffer)


def test_a_short_buffer_is_found_before_its_checksum_is_taken():
    manifest, buffer = make_push()
    with pytest.raises(WeightSyncError, match="came with 35 bytes"):
        check_transport(manifest, buffer[:-1])


def test_a_manifest_that_describes_other_sizes_is_found():
    manifest, buffer = make_push()
    specs = (manifest.tensors[0], TensorSpec("lm_head", (3, 2), "float32"))
    with pytest.raises(WeightSyncError, match="its tensors take 48"):
        check_transport(replace(manifest, tensors=specs), buffer)


@pytest.mark.parametrize(
    "buffer", [np.zeros(9, np.float32), np.zeros((6, 6), np.uint8), np.zeros(72, np.uint8)[::2]]
)
def test_only_a_flat_byte_buffer_is_taken(buffer):
    manifest, _ = make_push()
    with pytest.raises(WeightSyncError, match="not as one flat byte buffer"):
        check_transport(manifest, buffer)


def test_a_dtype_that_does_not_travel_is_named():
    manifest, buffer = make_push()
    specs = (*manifest.tensors, TensorSpec("mask", (0,), "bool"))
    with pytest.raises(WeightSyncError, match="has mask as bool"):
        check_transport(replace(manifest, tensors=specs), buffer)


@pytest.mark.parametrize("value", [-2.01, np.nan, -np.inf])
def test_a_probe_that_disagrees_or_is_not_a_number_proves_nothing(value):
    manifest, _ = make_push()
    with pytest.raises(WeightSyncError, match="is not proved"):
        check_probe(manifest, np.array([-1.0, value], np.float32))


def test_a_probe_cut_by_a_short_context_is_compared_as_far_as_it_goes():
    manifest, _ = make_push()
    assert check_probe(manifest, np.array([-1.0], np.float32)) == 0.0
