"""What the learner sends: the tensors' bytes, and the calls of vLLM's protocol."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from configs.checksum import checksum, start_checksum
from configs.wire import TensorSpec
from learner.weights import SamplerClient, StateDictSource, WeightCopies, WeightViews, make_manifest
from tests.packed_weights import packed_weights


def joined(parts: list[np.ndarray]) -> bytes:
    return b"".join(part.tobytes() for part in parts)


def test_tensors_become_their_bytes_in_order():
    state = {"a": torch.tensor([[1.0, -2.0]]), "b": torch.tensor([0.5])}
    specs, parts = packed_weights(state)
    assert specs == (TensorSpec("a", (1, 2), "float32"), TensorSpec("b", (1,), "float32"))
    assert [(part.dtype, part.shape) for part in parts] == [(np.uint8, (8,)), (np.uint8, (4,))]
    assert joined(parts) == np.array([1.0, -2.0, 0.5], "<f4").tobytes()


def test_wide_dtypes_come_first_so_that_all_are_aligned():
    state = {
        "half": torch.tensor([1.0], dtype=torch.bfloat16),
        "full": torch.tensor([1.0]),
        "other": torch.tensor([-1.0], dtype=torch.bfloat16),
    }
    specs, parts = packed_weights(state)
    assert [(s.name, s.dtype) for s in specs] == [
        ("full", "float32"),
        ("half", "bfloat16"),
        ("other", "bfloat16"),
    ]
    assert joined(parts).hex() == "0000803f" + "803f" + "80bf"


def test_all_copies_lie_in_one_piece_of_memory():
    _, parts = packed_weights({"a": torch.ones(3), "b": torch.ones(2)})
    assert parts[1].ctypes.data == parts[0].ctypes.data + 12


KINDS = pytest.mark.parametrize("kind", [WeightCopies, WeightViews])


@KINDS
def test_a_transposed_tensor_is_sent_in_its_own_order(kind: type[WeightCopies | WeightViews]):
    weights = kind([TensorSpec("w", (3, 2), "float32")])
    weights.put(["w"], torch.arange(6.0).reshape(2, 3).T)
    assert weights.parts()[0].view("<f4").tolist() == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]


@pytest.mark.parametrize(("kind", "then"), [(WeightCopies, [1.0, 1.0]), (WeightViews, [0.0, 0.0])])
def test_a_step_changes_what_is_lent_and_never_a_copy(
    kind: type[WeightCopies | WeightViews], then: list[float]
):
    weights, weight = kind([TensorSpec("w", (2,), "float32")]), torch.ones(2, requires_grad=True)
    weights.put(["w"], weight)
    with torch.no_grad():
        weight.zero_()
    assert weights.parts()[0].view("<f4").tolist() == then


def test_bfloat16_is_lent_as_its_bytes():
    weights = WeightViews([TensorSpec("w", (1, 2), "bfloat16")])
    weights.put(["w"], torch.tensor([[1.0, -1.0]], dtype=torch.bfloat16))
    assert joined(weights.parts()).hex() == "803f" + "80bf"


def test_a_dtype_that_does_not_travel_is_refused():
    with pytest.raises(AssertionError, match=r"mask is bool"):
        packed_weights({"mask": torch.ones(1, dtype=torch.bool)})


@KINDS
def test_a_weight_of_two_names_travels_once(kind: type[WeightCopies | WeightViews]):
    weights = kind(
        [TensorSpec("a", (2,), "float32"), TensorSpec("head", (2,), "float32", same_as="a")]
    )
    weights.put(["a", "head"], torch.tensor([1.0, 2.0]))
    assert [part.view("<f4").tolist() for part in weights.parts()] == [[1.0, 2.0]]
    assert [spec.name for spec in weights.specs] == ["a", "head"]


@pytest.mark.parametrize(
    ("kind", "error"), [(WeightCopies, AssertionError), (WeightViews, KeyError)]
)
def test_weights_with_a_hole_are_not_sent(
    kind: type[WeightCopies | WeightViews], error: type[Exception]
):
    weights = kind([TensorSpec("a", (2,), "float32"), TensorSpec("b", (1,), "float32")])
    weights.put(["b"], torch.ones(1))
    with pytest.raises(error, match="a"):
        weights.parts()


def test_a_tied_head_is_sent_under_its_own_name_too():
    config = GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model = GPT2LMHeadModel(config)
    assert model.lm_head.weight is model.transformer.wte.weight
    specs = {spec.name: spec for spec in packed_weights(model.state_dict())[0]}
    assert specs["lm_head.weight"].same_as == "transformer.wte.weight"
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_the_manifest_describes_the_bytes():
    specs, parts = packed_weights({"v": torch.zeros(1), "w": torch.ones(3)})
    manifest = make_manifest(
        specs,
        parts,
        version=4,
        probe_ids=np.array([1, 2], np.int32),
    )
    assert (manifest.version, manifest.nbytes, manifest.tensors) == (4, 16, specs)
    assert manifest.probe_ids.tolist() == [1, 2]


def test_a_checksum_is_of_the_bytes_however_they_are_cut():
    _, parts = packed_weights({"v": torch.zeros(1), "w": torch.ones(3)})
    assert checksum(parts) == checksum([np.concatenate(parts)]) == start_checksum(parts).result()
    assert checksum(parts) != checksum([parts[0], parts[1] ^ np.uint8(1)])


def test_vllms_source_reads_the_weights_anew_and_declares_what_it_sends():
    weights = {"w": torch.zeros(2, 3), "lm_head.weight": torch.zeros(1, dtype=torch.bfloat16)}
    source = StateDictSource(lambda: weights)
    first = dict(source)
    weights["w"] = torch.ones(2, 3)
    assert first["w"].sum() == 0
    assert dict(source)["w"].sum() == 6
    assert [tuple(meta) for meta in source.metadata()] == [
        ("w", torch.float32, (2, 3)),
        ("lm_head.weight", torch.bfloat16, (1,)),
    ]


def test_the_client_speaks_vllms_four_phases():
    calls = []
    client = SamplerClient(lambda phase, payload: calls.append((phase, payload)))
    client.init_weight_transfer_engine({"world_size": 2})
    client.start_weight_update()
    client.update_weights({"names": ["w"]})
    client.finish_weight_update("5")
    assert calls == [
        ("init_weight_transfer_engine", {"init_info": {"world_size": 2}}),
        ("start_weight_update", {}),
        ("update_weights", {"update_info": {"names": ["w"]}}),
        ("finish_weight_update", {}),
    ]
