"""The student sampler: trajectories, weight pushes, and the proof of each."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from actors.student import StudentSampler, request_seed
from actors.weight_recorder import LoadRecorder, Move, Target
from actors.weights import check_proof
from configs.checksum import checksum
from configs.errors import DataError, WeightSyncError
from configs.sampling import Sampling
from configs.student import StudentConfig
from configs.wire import Prompt, Trajectory, Uid, WeightManifest, WeightProbe
from learner.weights import cut, make_manifest
from tests.packed_weights import packed_weights

CONTEXT, VOCABULARY, HIDDEN = 64, 61, 64
IDS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GQA: dict[str, Any] = {
    **IDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}
Push = tuple[WeightManifest, list[np.ndarray]]
FAMILIES = {
    "gpt2": lambda: GPT2Config(n_embd=HIDDEN, n_layer=2, n_head=2, n_positions=CONTEXT, **IDS),
    "opt": lambda: OPTConfig(
        hidden_size=HIDDEN,
        word_embed_proj_dim=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=48,
        max_position_embeddings=CONTEXT,
        **IDS,
    ),
    "llama": lambda: LlamaConfig(**GQA),
    "qwen2": lambda: Qwen2Config(tie_word_embeddings=True, **GQA),
    "qwen3": lambda: Qwen3Config(head_dim=32, **GQA),
}
TIED = {"gpt2", "opt", "qwen2"}
PROBE = np.array([3, 17, 42, 5, 60, 8, 2, 11, 3, 29, 33, 7], np.int32)


def make_model(family: str, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_sampler(family: str, seed: int) -> StudentSampler:
    """Start an engine with the weights of ``seed``."""
    torch.set_num_threads(1)
    folder = Path(mkdtemp())
    make_model(family, seed).save_pretrained(folder)
    config = StudentConfig(sampling=Sampling(temperature=1.0, top_p=1.0, max_new_tokens=16))
    return StudentSampler(config, model=str(folder), seed=0)


@cache
def shared() -> StudentSampler:
    """One GPT-2 sampler; every test that fails a push ends with a good one."""
    return make_sampler("gpt2", seed=1)


def make_prompts(count: int = 4) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [
        Prompt(
            uid=Uid(0, i, 0),
            row=i,
            prompt_ids_P=rng.integers(3, VOCABULARY, rng.integers(1, 40)).astype(np.int32),
        )
        for i in range(count)
    ]


@torch.no_grad()
def learner_logprobs(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(ids.astype(np.int64))
    logprobs = model(tensor[None]).logits[0, :-1].float().log_softmax(-1)
    return logprobs.gather(-1, tensor[1:, None])[:, 0].numpy()


def make_push(
    model: PreTrainedModel, version: int, state: dict[str, torch.Tensor] | None = None
) -> Push:
    tensors, parts = packed_weights(model.state_dict() if state is None else state)
    manifest = make_manifest(
        tensors,
        parts,
        version=version,
        probe_ids=PROBE,
    )
    return manifest, parts


def probe(model: PreTrainedModel, push: Push, tolerance: float = 1e-4) -> WeightProbe:
    """What the learner says of a push that is on its way."""
    return WeightProbe(
        version=push[0].version,
        checksum=checksum(push[1]),
        logprobs=learner_logprobs(model, PROBE),
        tolerance=tolerance,
    )


def proved(sampler: StudentSampler, said: WeightProbe) -> float:
    """Have the sampler prove what it was given; returns the difference, nats."""
    proof = sampler.prove()
    assert proof is not None, "nothing to prove"
    return check_proof(said, proof, "sampler-0")


def largest_difference(sampler: StudentSampler, model: PreTrainedModel) -> float:
    """Largest |log mu by the sampler - log q by transformers| over freshly drawn responses."""
    differences = []
    for trajectory in sampler.generate(make_prompts()).trajectories:
        prompt, response = trajectory.prompt.prompt_ids_P, trajectory.response
        expected = learner_logprobs(model, np.concatenate([prompt, response.ids_T]))
        assert response.behaviour_logprobs_T is not None
        differences.append(
            np.abs(response.behaviour_logprobs_T - expected[len(prompt) - 1 :]).max()
        )
    return float(max(differences))


def test_a_seed_is_a_stable_function_of_run_and_uid_in_vllms_range():
    assert request_seed(0, Uid(0, 7, 0)) == 4297636607994433873
    seeds = {
        request_seed(r, Uid(e, o, s))
        for r in (0, 1)
        for e in (0, 1)
        for o in (0, 1)
        for s in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)


def transfer_engine(sampler: StudentSampler) -> Any:
    """The end of the weight transfer in the sampler's only worker."""
    core: Any = sampler._engine._running().llm_engine.engine_core
    return core.engine_core.model_executor.driver_worker.worker.weight_transfer_engine


@pytest.mark.engine
@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_push_sampler_and_learner_agree(family: str, monkeypatch: pytest.MonkeyPatch):
    sampler, model = make_sampler(family, seed=1), make_model(family, seed=2)
    assert ("lm_head.weight" in dict(model.named_parameters())) == (family not in TIED)
    assert largest_difference(sampler, model) > 0.1  # it starts with other weights
    manifest, parts = make_push(model, version=3)
    for part in parts:
        part.flags.writeable = False  # as Ray's object store gives it
    said = probe(model, (manifest, parts))
    receipt = sampler.load_weights(manifest, parts)
    assert (receipt.version, sampler.weight_version) == (3, 3)
    assert receipt.nbytes == sum(part.nbytes for part in parts)
    assert proved(sampler, said) < 1e-4
    again = sampler.prove()
    assert again is not None and check_proof(said, again, "sampler-0") < 1e-4, "it is repeated"
    assert largest_difference(sampler, model) < 1e-4
    # The first push has taught where everything lives: the loader is not asked again.
    monkeypatch.setattr(transfer_engine(sampler), "_load", None)
    again = make_model(family, seed=4)
    manifest, parts = make_push(again, version=4)
    sampler.load_weights(manifest, *map(sampler.relay, cut(parts, 3)))  # by way of other machines
    sampler.prove()
    for part in parts:  # nothing of it is kept
        part[:] = 255
    assert largest_difference(sampler, again) < 1e-4
    sampler.close()


@pytest.mark.engine
def test_a_push_by_the_short_way_leaves_the_bits_that_the_loader_leaves():
    pushes = [make_push(make_model("gpt2", seed), version=50) for seed in (7, 8)]
    for push in pushes:
        shared().go_back(*push)
    short = shared().generate(make_prompts()).trajectories
    engine = transfer_engine(shared())
    assert engine._places is not None
    engine._places = None
    shared().load_weights(*pushes[1])
    long = shared().generate(make_prompts()).trajectories
    engine._seen = None
    for ours, theirs in zip(short, long, strict=True):
        assert ours.response.ids_T.tolist() == theirs.response.ids_T.tolist()
        assert ours.response.arrays[1].tobytes() == theirs.response.arrays[1].tobytes()


@pytest.mark.engine
def test_where_the_short_way_is_not_the_loaders_the_loader_is_asked_every_time(
    monkeypatch: pytest.MonkeyPatch,
):
    engine, model = transfer_engine(shared()), make_model("gpt2", seed=9)
    engine._seen = None
    with monkeypatch.context() as patched:
        patched.setattr(LoadRecorder, "targets", property(swapped_halves))
        shared().load_weights(*make_push(model, version=60))
        assert engine._places is None
    again = make_model("gpt2", seed=10)
    shared().load_weights(*make_push(again, version=61))
    assert engine._places is None
    assert largest_difference(shared(), again) < 1e-4
    engine._seen = None


def swapped_halves(recorder: LoadRecorder) -> list[Target]:
    """Recorded moves, of which one says that a weight's two halves lie the other way round."""
    found = [target for target in recorder._targets.values() if target.moves]
    index = next(i for i, target in enumerate(found) if target.name == "weight" and i > 2)
    move = found[index].moves[0]
    half = move.here.size[0] // 2
    there = move.there._replace(size=(half, *move.there.size[1:]))
    here = move.here._replace(size=(half, *move.here.size[1:]))
    later = [part._replace(offset=part.offset + half * part.stride[0]) for part in (there, here)]
    moves = [Move(move.sent, there, later[1]), Move(move.sent, later[0], here)]
    found[index] = found[index]._replace(moves=moves[::-1])
    return found


@pytest.mark.engine
def test_bfloat16_weights_arrive_unchanged():
    model = make_model("gpt2", seed=5).bfloat16()
    rounded = make_model("gpt2", seed=5)
    rounded.load_state_dict(model.state_dict())
    tensors, parts = packed_weights(model.state_dict())
    manifest = replace(
        make_push(rounded, version=shared().weight_version)[0],
        tensors=tensors,
        nbytes=sum(part.nbytes for part in parts),
    )
    said = probe(rounded, (manifest, parts))
    assert {spec.dtype for spec in manifest.tensors} == {"bfloat16"}
    for _ in range(2):  # by the loader, then by the short way
        shared().load_weights(manifest, parts)
        assert proved(shared(), said) < 1e-4


@pytest.mark.engine
def test_a_bfloat16_engine_draws_and_takes_pushes(tmp_path: Path):
    """With Intel's matrix registers, where there are any: vLLM uses them and asks for none."""
    folder, model = str(tmp_path), make_model("gpt2", seed=8).bfloat16()
    model.save_pretrained(folder)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=16)
    config = StudentConfig(model=folder, dtype="bfloat16", sampling=sampling)
    sampler = StudentSampler(config, model=folder, seed=0)
    assert len(sampler.generate(make_prompts()).trajectories) == len(make_prompts())
    again = make_model("gpt2", seed=9).bfloat16()
    tensors, parts = packed_weights(again.state_dict())
    manifest = replace(
        make_push(make_model("gpt2", seed=9), version=1)[0],
        tensors=tensors,
        nbytes=sum(part.nbytes for part in parts),
    )
    said = probe(make_model("gpt2", seed=9), (manifest, parts), tolerance=0.15)
    for _ in range(2):  # by the loader, then by the short way
        sampler.load_weights(manifest, parts)
        assert proved(sampler, said) < 0.15
    assert {drawn.weight_version for drawn in sampler.generate(make_prompts()).trajectories} == {1}
    sampler.close()


def without_head(model: PreTrainedModel) -> Push:
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    return make_push(model, 20, state)


def stale_head(model: PreTrainedModel) -> Push:
    old = make_model("gpt2", seed=1).state_dict()["lm_head.weight"]
    return make_push(model, 20, {**model.state_dict(), "lm_head.weight": old})


def stale_layer(model: PreTrainedModel) -> Push:
    name = "transformer.h.1.mlp.c_proj.weight"
    old = make_model("gpt2", seed=1).state_dict()[name]
    return make_push(model, 20, {**model.state_dict(), name: old})


def flipped_byte(model: PreTrainedModel) -> Push:
    manifest, parts = make_push(model, 20)
    parts[0][1234] ^= 1
    return manifest, parts


def wrong_shape(model: PreTrainedModel) -> Push:
    name = "transformer.h.0.mlp.c_fc.weight"
    return make_push(model, 20, {**model.state_dict(), name: model.state_dict()[name].T})


def older_version(model: PreTrainedModel) -> Push:
    return make_push(model, 9)


def not_finite(model: PreTrainedModel) -> Push:
    bias = torch.full_like(model.state_dict()["transformer.ln_f.bias"], torch.nan)
    return make_push(model, 20, {**model.state_dict(), "transformer.ln_f.bias": bias})


@pytest.mark.engine
@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (without_head, "lacks tensor lm_head.weight"),
        (wrong_shape, r"c_fc.weight with shape \(256, 64\)"),
        (older_version, "version 9, older than version 10"),
    ],
)
def test_a_bad_push_is_an_error_and_nothing_is_generated_until_a_good_one(
    make_bad: Callable[[PreTrainedModel], Push], message: str
):
    sampler = shared()
    sampler.weight_version = 0  # so that the tests may run in any order
    sampler.load_weights(*make_push(make_model("gpt2", seed=1), version=10))
    model = make_model("gpt2", seed=2)
    with pytest.raises(WeightSyncError, match=message):
        sampler.load_weights(*make_bad(model))
    assert sampler.weight_version == 10
    with pytest.raises(WeightSyncError, match="does not generate with such weights"):
        sampler.generate(make_prompts())
    with pytest.raises(WeightSyncError, match="does not generate with such weights"):
        sampler.prove()
    sampler.load_weights(*make_push(model, version=21))
    assert largest_difference(sampler, model) < 1e-4


@pytest.mark.engine
@pytest.mark.parametrize("draws", [True, False])
@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (stale_head, "is not proved"),
        (stale_layer, "is not proved"),
        (flipped_byte, "damaged on its way"),
        (not_finite, "is not proved"),
    ],
)
def test_weights_that_are_not_the_learner_s_come_with_a_proof_of_that(
    make_bad: Callable[[PreTrainedModel], Push], message: str, draws: bool
):
    sampler, model = shared(), make_model("gpt2", seed=2)
    sampler.weight_version = 0
    manifest, parts = make_bad(model)
    said = probe(model, (manifest, parts))
    if make_bad is flipped_byte:
        said = replace(said, checksum=checksum(make_push(model, 20)[1]))
    sampler.load_weights(manifest, parts)
    proof = sampler.generate(make_prompts()).proof if draws else sampler.prove()
    assert proof is not None
    with pytest.raises(WeightSyncError, match=message):
        check_proof(said, proof, "sampler-0")
    sampler.load_weights(*make_push(model, version=21))
    assert largest_difference(sampler, model) < 1e-4


@pytest.mark.engine
def test_the_first_draw_proves_its_weights_and_is_what_it_would_be_without():
    sampler, model = shared(), make_model("gpt2", seed=11)
    sampler.weight_version = 0
    push = make_push(model, version=70)
    sampler.load_weights(*push)
    first, then = sampler.generate(make_prompts()), sampler.generate(make_prompts())
    assert first.proof is not None and then.proof is first.proof
    assert check_proof(probe(model, push), first.proof, "sampler-0") < 1e-4
    for one, other in zip(first.trajectories, then.trajectories, strict=True):
        assert [a.tobytes() for a in one.response.arrays] == [
            a.tobytes() for a in other.response.arrays
        ]


@pytest.mark.engine
def test_an_older_snapshot_returns_when_it_is_asked_to():
    sampler = shared()
    sampler.weight_version = 0
    old, new = make_model("gpt2", seed=3), make_model("gpt2", seed=4)
    snapshot = make_push(old, version=5)
    sampler.load_weights(*snapshot)
    sampler.load_weights(*make_push(new, version=9))
    assert sampler.go_back(*snapshot).version == 5
    assert largest_difference(sampler, old) < 1e-4
    assert {t.weight_version for t in sampler.generate(make_prompts()).trajectories} == {5}


@pytest.mark.engine
def test_a_push_that_fails_half_way_leaves_an_engine_that_can_be_repaired():
    sampler, model = shared(), make_model("gpt2", seed=6)
    manifest, parts = make_push(model, version=30)
    shapes = {spec.name: tuple(spec.shape) for spec in manifest.tensors}
    name = "transformer.h.1.attn.c_attn.weight"
    shapes[name] = shapes[name][::-1]
    bent = tuple(spec._replace(shape=shapes[spec.name]) for spec in manifest.tensors)
    sampler._expected, kept = shapes, sampler._expected  # past the first check, into vLLM's loader
    with pytest.raises(WeightSyncError, match="refused weight push 30"):
        sampler.load_weights(replace(manifest, tensors=bent), parts)
    sampler._expected = kept
    sampler.load_weights(manifest, parts)
    assert largest_difference(sampler, model) < 1e-4


@pytest.mark.engine
def test_trajectories_carry_their_prompt_and_the_version_that_drew_them():
    sampler, prompts = shared(), make_prompts(5)
    sampler.load_weights(*make_push(make_model("gpt2", seed=3), version=40))
    trajectories = sampler.generate(prompts).trajectories
    assert [t.prompt for t in trajectories] == prompts
    assert {t.weight_version for t in trajectories} == {40}
    assert sampler.generate([]).trajectories == []


@pytest.mark.engine
def test_what_is_drawn_depends_on_the_uid_and_not_on_the_batch():
    sampler, prompts = shared(), make_prompts(6)
    whole = {t.prompt.uid: t.response for t in sampler.generate(prompts).trajectories}
    parts = [sampler.generate(part).trajectories for part in (prompts[4:], prompts[:4])]
    for trajectory in itertools.chain(*parts):
        expected = whole[trajectory.prompt.uid]
        assert trajectory.response.ids_T.tolist() == expected.ids_T.tolist()
        assert trajectory.response.behaviour_logprobs_T is not None
        assert expected.behaviour_logprobs_T is not None
        assert (
            trajectory.response.behaviour_logprobs_T.tobytes()
            == expected.behaviour_logprobs_T.tobytes()
        )
    other = replace(prompts[0], uid=Uid(0, 0, 1))
    assert (
        sampler.generate([other]).trajectories[0].response.ids_T.tolist()
        != whole[prompts[0].uid].ids_T.tolist()
    )


@pytest.mark.engine
def test_calls_side_by_side_draw_what_they_draw_alone_and_pushes_come_between(
    request: pytest.FixtureRequest,
):
    sampler = make_sampler("gpt2", seed=1)
    request.addfinalizer(sampler.close)
    prompts = make_prompts(24)
    parts = [prompts[i : i + 6] for i in range(0, 24, 6)]
    alone = [sampler.generate(part).trajectories for part in parts]
    push = make_push(make_model("gpt2", seed=2), version=1)
    with ThreadPoolExecutor(8) as pool:
        before = [pool.submit(sampler.generate, part) for part in parts]
        have_come(sampler, before)
        pushed = pool.submit(sampler.load_weights, *push)
        have_come(sampler, [*before, pushed])
        after = [pool.submit(sampler.generate, part) for part in parts]
    assert pushed.result().version == 1
    for draw, expected in zip(before, alone, strict=True):
        assert [t.weight_version for t in draw.result().trajectories] == [0] * 6
        assert drawn(draw.result().trajectories) == drawn(expected)
    again = [sampler.generate(part).trajectories for part in parts]
    for draw, expected in zip(after, again, strict=True):
        assert [t.weight_version for t in draw.result().trajectories] == [1] * 6
        assert drawn(draw.result().trajectories) == drawn(expected)
        assert draw.result().proof is not None


def have_come(sampler: StudentSampler, calls: "Sequence[Future[Any]]") -> None:
    """Wait until every call is in the sampler, or answered."""
    while len(sampler._calls._there) + sum(call.done() for call in calls) < len(calls):
        time.sleep(1e-3)


@pytest.mark.engine
def test_warming_up_waits_for_a_push_that_came_before(request: pytest.FixtureRequest):
    sampler = make_sampler("gpt2", seed=1)  # the first load of a process moves its layers about
    request.addfinalizer(sampler.close)
    model = make_model("gpt2", seed=2)
    push = make_push(model, version=1)
    with ThreadPoolExecutor(2) as pool:
        pushed = pool.submit(sampler.load_weights, *push)
        have_come(sampler, [pushed])
        warm = pool.submit(sampler.warm_up)
    assert pushed.result().version == 1 and warm.result() is None
    assert proved(sampler, probe(model, push)) < 1e-4


def drawn(trajectories: Sequence[Trajectory]) -> list[tuple[list[int], list[float]]]:
    """What was drawn, to the last bit."""
    responses = [trajectory.response for trajectory in trajectories]
    assert all(response.behaviour_logprobs_T is not None for response in responses)
    return [
        (each.ids_T.tolist(), np.asarray(each.behaviour_logprobs_T).tolist()) for each in responses
    ]


@pytest.mark.engine
def test_a_prompt_that_does_not_fit_is_named():
    long = Prompt(uid=Uid(2, 5, 1), row=9, prompt_ids_P=np.full(49, 5, np.int32))
    with pytest.raises(DataError, match=r"prompt 2/5/1 \(row 9\) has 49 tokens.* context of 64"):
        shared().generate([long])
    fits = replace(long, prompt_ids_P=np.full(48, 5, np.int32))
    assert len(shared().generate([fits]).trajectories) == 1
    one = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=1)
    assert len(shared().generate([long], one).trajectories[0].response.ids_T) == 1
