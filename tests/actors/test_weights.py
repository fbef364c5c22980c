"""What a sampler checks of a push without an engine."""

from dataclasses import replace

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from actors.weights import by_name, check_parts, check_proof, check_tensors, check_version, joined
from configs.checksum import checksum, start_checksum
from configs.errors import WeightSyncError
from configs.wire import TensorSpec, WeightManifest, WeightProbe, WeightProof
from learner.weights import cut

PROBE = WeightProbe(
    version=7,
    checksum=xxhash.xxh3_128_hexdigest(bytes(range(36))),
    logprobs=np.array([-1.0, -2.0], np.float32),
    tolerance=1e-3,
)
SHAPES = {"embed": (3, 2), "lm_head": (3, 2)}


def make_push() -> tuple[WeightManifest, list[np.ndarray]]:
    whole = np.arange(36, dtype=np.uint8)
    manifest = WeightManifest(
        version=7,
        tensors=(
            TensorSpec("embed", (3, 2), "float32"),
            TensorSpec("lm_head", (3, 2), "bfloat16"),
        ),
        nbytes=36,
        probe_ids=np.array([1, 2, 3], np.int32),
    )
    return manifest, [whole[:24], whole[24:]]


def proof(*logprobs: float, checksum: str = PROBE.checksum) -> WeightProof:
    return WeightProof(version=7, checksum=checksum, logprobs=np.array(logprobs, np.float32))


def test_an_intact_push_passes_every_check():
    manifest, parts = make_push()
    check_version(manifest, held=6)
    check_tensors(manifest, SHAPES)
    check_parts(manifest, parts)
    came = proof(-1.0, -2.0005, checksum=start_checksum(parts).result())
    difference = check_proof(PROBE, came, "sampler-0")
    assert difference == pytest.approx(0.0005, rel=1e-3)


def test_the_checksum_is_xxh3_of_sixteen_bytes():
    assert checksum([]) == "99aa06d3014798d86001c324468d497f"


def test_a_tied_tensor_has_the_bytes_of_its_first_name():
    manifest, parts = make_push()
    tied = manifest.tensors[0]._replace(name="tied", same_as="embed")
    found = [(spec.name, part) for spec, part in by_name((*manifest.tensors, tied), parts)]
    assert [name for name, _ in found] == ["embed", "lm_head", "tied"]
    assert found[0][1] is found[2][1] is parts[0] and found[1][1] is parts[1]
    check_parts(replace(manifest, tensors=(*manifest.tensors, tied)), parts)


@pytest.mark.parametrize(
    "tied",
    [
        TensorSpec("tied", (3, 2), "float32", same_as="nothing"),
        TensorSpec("tied", (2, 3), "float32", same_as="embed"),
        TensorSpec("tied", (3, 2), "bfloat16", same_as="embed"),
    ],
)
def test_a_second_name_is_of_an_earlier_tensor_of_its_shape(tied: TensorSpec):
    manifest, parts = make_push()
    with pytest.raises(WeightSyncError, match="has tied as another name of"):
        check_parts(replace(manifest, tensors=(*manifest.tensors, tied)), parts)


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
    manifest, parts = make_push()
    parts[byte // 24][byte % 24] ^= 1
    check_parts(manifest, parts)
    with pytest.raises(WeightSyncError, match="damaged on its way"):
        check_proof(PROBE, proof(-1.0, -2.0, checksum=checksum(parts)), "sampler-0")


def test_a_short_part_is_found_before_it_is_loaded():
    manifest, parts = make_push()
    with pytest.raises(WeightSyncError, match="came with 35 bytes"):
        check_parts(manifest, [parts[0], parts[1][:-1]])


def test_bytes_that_are_cut_elsewhere_are_found():
    manifest, parts = make_push()
    whole = np.concatenate(parts)
    with pytest.raises(WeightSyncError, match="36 bytes in 2 parts"):
        check_parts(manifest, [whole[:12], whole[12:]])
    with pytest.raises(WeightSyncError, match="36 bytes in 1 parts"):
        check_parts(manifest, [whole])


def test_a_manifest_that_describes_other_sizes_is_found():
    manifest, parts = make_push()
    specs = (manifest.tensors[0], TensorSpec("lm_head", (3, 2), "float32"))
    with pytest.raises(WeightSyncError, match="its 2 tensors take 48"):
        check_parts(replace(manifest, tensors=specs), parts)


@pytest.mark.parametrize(
    "part", [np.zeros(9, np.float32), np.zeros((6, 6), np.uint8), np.zeros(72, np.uint8)[::2]]
)
def test_only_flat_bytes_are_taken(part):
    manifest, parts = make_push()
    with pytest.raises(WeightSyncError, match="not as flat arrays of bytes"):
        check_parts(manifest, [parts[0], part])


def test_a_dtype_that_does_not_travel_is_named():
    manifest, parts = make_push()
    specs = (*manifest.tensors, TensorSpec("mask", (0,), "bool"))
    with pytest.raises(WeightSyncError, match="has mask as bool"):
        check_parts(replace(manifest, tensors=specs), parts)


@pytest.mark.parametrize("value", [-2.01, np.nan, -np.inf])
def test_a_probe_that_disagrees_or_is_not_a_number_proves_nothing(value):
    with pytest.raises(WeightSyncError, match="version 7 is not proved: sampler-3 and"):
        check_proof(PROBE, proof(-1.0, value), "sampler-3")


def test_a_probe_cut_by_a_short_context_is_compared_as_far_as_it_goes():
    assert check_proof(PROBE, proof(-1.0), "sampler-0") == 0.0


def test_bytes_that_were_cut_badly_are_found():
    manifest, parts = make_push()
    one, two = cut(parts, 2)
    for shards in ([one], [two, one], [one, two, two]):
        with pytest.raises(WeightSyncError, match="push again"):
            check_parts(manifest, joined(manifest, shards))


SIZES = st.lists(st.integers(0, 150), max_size=12)


@given(sizes=SIZES, count=st.integers(1, 9))
def test_what_was_cut_is_joined_again(sizes: list[int], count: int):
    parts = [np.arange(2 * size).astype(np.uint8) + number for number, size in enumerate(sizes)]
    shards = cut(parts, count)
    held = [sum(piece.nbytes for piece in shard) for shard in shards]
    assert len(held) == count and max(held) <= max(1, -(-sum(held) // count)), "of even size"
    manifest = WeightManifest(
        version=0,
        tensors=tuple(TensorSpec(str(i), (size,), "bfloat16") for i, size in enumerate(sizes)),
        nbytes=2 * sum(sizes),
        probe_ids=np.zeros(1, np.int32),
    )
    again = joined(manifest, shards)
    check_parts(manifest, again)
    assert [each.tolist() for each in again] == [part.tolist() for part in parts]
