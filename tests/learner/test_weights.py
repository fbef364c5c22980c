"""What the learner sends: the buffer's bytes, and the calls of vLLM's protocol."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from configs.wire import TensorSpec
from learner.weights import (
    SamplerClient,
    StateDictSource,
    WeightBuffer,
    checksum,
    make_manifest,
)
from tests.packed_weights import packed_weights


def test_tensors_become_their_bytes_in_order():
    state = {"a": torch.tensor([[1.0, -2.0]]), "b": torch.tensor([0.5])}
    specs, buffer = packed_weights(state)
    assert specs == (TensorSpec("a", (1, 2), "float32"), TensorSpec("b", (1,), "float32"))
    assert buffer.dtype == np.uint8
    assert buffer.tobytes() == np.array([1.0, -2.0, 0.5], "<f4").tobytes()


def test_wide_dtypes_come_first_so_that_all_are_aligned():
    state = {
        "half": torch.tensor([1.0], dtype=torch.bfloat16),
        "full": torch.tensor([1.0]),
        "other": torch.tensor([-1.0], dtype=torch.bfloat16),
    }
    specs, buffer = packed_weights(state)
    assert [(s.name, s.dtype) for s in specs] == [
        ("full", "float32"),
        ("half", "bfloat16"),
        ("other", "bfloat16"),
    ]
    assert buffer.tobytes().hex() == "0000803f" + "803f" + "80bf"


def test_a_transposed_tensor_is_sent_in_its_own_order():
    state = {"w": torch.arange(6.0).reshape(2, 3).T}
    specs, buffer = packed_weights(state)
    assert specs[0].shape == (3, 2)
    assert buffer.view("<f4").tolist() == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]


def test_the_buffer_is_a_copy_that_training_cannot_change():
    weight = torch.ones(2, requires_grad=True)
    _, buffer = packed_weights({"w": weight})
    with torch.no_grad():
        weight.zero_()
    assert buffer.view("<f4").tolist() == [1.0, 1.0]


def test_a_dtype_that_does_not_travel_is_refused():
    with pytest.raises(AssertionError, match=r"mask is bool"):
        packed_weights({"mask": torch.ones(1, dtype=torch.bool)})


def test_a_weight_of_two_names_is_put_under_both():
    weights = WeightBuffer([TensorSpec("a", (2,), "float32"), TensorSpec("head", (2,), "float32")])
    weights.put(["a", "head"], torch.tensor([1.0, 2.0]))
    assert weights.packed()[1].view("<f4").tolist() == [1.0, 2.0, 1.0, 2.0]


def test_a_buffer_with_a_hole_is_not_sent():
    weights = WeightBuffer([TensorSpec("a", (2,), "float32"), TensorSpec("b", (1,), "float32")])
    weights.put(["b"], torch.ones(1))
    with pytest.raises(AssertionError, match="nothing was put for a"):
        weights.packed()


def test_a_tied_head_is_sent_under_its_own_name_too():
    config = GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model = GPT2LMHeadModel(config)
    assert model.lm_head.weight is model.transformer.wte.weight
    names = {spec.name for spec in packed_weights(model.state_dict())[0]}
    assert {"lm_head.weight", "transformer.wte.weight"} <= names
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_the_manifest_describes_the_buffer():
    specs, buffer = packed_weights({"w": torch.ones(3)})
    manifest = make_manifest(
        specs,
        buffer,
        version=4,
        probe_ids=np.array([1, 2], np.int32),
        probe_logprobs=np.array([-0.5], np.float32),
        probe_tolerance=1e-3,
    )
    assert (manifest.version, manifest.nbytes, manifest.tensors) == (4, 12, specs)
    assert manifest.checksum == checksum(buffer)
    assert manifest.checksum != checksum(buffer ^ np.uint8(1))


def test_a_probe_of_the_wrong_length_is_refused():
    specs, buffer = packed_weights({"w": torch.ones(3)})
    with pytest.raises(AssertionError, match="one value per predicted probe token"):
        make_manifest(
            specs,
            buffer,
            version=4,
            probe_ids=np.array([1, 2], np.int32),
            probe_logprobs=np.array([-0.5, -0.5], np.float32),
            probe_tolerance=1e-3,
        )


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
