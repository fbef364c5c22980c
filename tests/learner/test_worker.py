"""The learner on a real DeepSpeed engine: one rank here, two ranks in processes of their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from configs.checksum import checksum
from configs.errors import CheckpointError, ConfigError, DependencyError, NonFiniteError
from configs.learner import LearnerConfig
from configs.objective import DpkdConfig, ObjectiveConfig
from configs.objectives.divergence import KdConfig
from configs.packing import pack
from configs.run import RunConfig
from learner.batch import collate
from learner.logprobs import ResponseScorer
from learner.optimizer import learning_rate_factor
from learner.segments import Asked, Segment
from learner.step import forward_backward
from learner.worker import LearnerWorker
from tests.learner.learner_builders import VOCABULARY, preference_tuples, run_config, saved_model
from tests.learner.ranks import (
    Learned,
    batches,
    learn,
    learn_and_publish,
    learned_by_ranks,
    received,
    started_worker,
    whole,
)
from tests.learner.torch_engine import TorchEngine

pytestmark = pytest.mark.engine


def config(objective: ObjectiveConfig | None = None, **learner: Any) -> RunConfig:
    """Return a run with several micro-batches a step and several chunks a micro-batch."""
    defaults = {"batch_size": 8, "threads": 1, "warmup_steps": 1, "steps": 6}
    small = {"micro_batch_tokens": 512, "logits_at_once": 16384}
    return run_config(LearnerConfig.model_validate(defaults | small | learner), objective)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_model(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def reference(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Learned, Path]:
    """What one rank without sharding sees in three steps, and the model it ends with."""
    worker = started_worker(config(), model)
    learned = learn_and_publish(worker, config())
    folder = tmp_path_factory.mktemp("reference") / "model"
    worker.save_model(str(folder))
    worker.close()
    return learned, folder


def difference(left: Path, right: Path) -> float:
    """Return the largest difference of any logit of two saved models.

    Not of weights: Adam turns rounding noise in a gradient that is zero by symmetry, such as
    that of a key's bias, into steps of full size, which no output feels.
    """
    ids_RL = torch.arange(40)[None]
    logits = [AutoModelForCausalLM.from_pretrained(path)(ids_RL).logits for path in (left, right)]
    return (logits[0] - logits[1]).abs().max().item()


def felt(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return GPT-2's weights without the keys' biases, which ``difference`` tells of."""
    found = dict(weights)
    for name in weights:
        if name.endswith("attn.c_attn.bias"):
            query, _, value = np.split(found.pop(name), 3)
            found |= {f"{name} of the query": query, f"{name} of the value": value}
    return found


@pytest.mark.parametrize(
    "learner",
    [
        {"zero_stage": 1},
        {"zero_stage": 2},
        {"zero_stage": 3},
        {"zero_stage": 3, "activation_checkpointing": True},
    ],
)
def test_sharding_does_not_change_learning(
    learner: dict[str, Any], model: str, reference: tuple[Learned, Path], tmp_path: Path
) -> None:
    worker = started_worker(config(**learner), model)
    values = learn(worker, config(), 3)
    worker.save_model(str(tmp_path / "model"))
    worker.close()
    assert values == pytest.approx(reference[0].values[:-1], abs=1e-5, rel=1e-5)
    assert difference(tmp_path / "model", reference[1]) < 1e-4


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_learn_and_publish_what_one_does(
    ranks: int, model: str, reference: tuple[Learned, Path], tmp_path: Path
) -> None:
    stages = [config(ranks=ranks, zero_stage=stage, batch_size=6) for stage in (0, 2, 3)]
    expected, saved = reference
    for number, learned in enumerate(learned_by_ranks(ranks, stages, model, str(tmp_path))):
        how = stages[number].learner
        assert learned.values == pytest.approx(expected.values, abs=1e-5, rel=1e-5), how
        assert list(learned.weights) == list(expected.weights), how
        for name, weight in felt(expected.weights).items():
            assert felt(learned.weights)[name] == pytest.approx(weight, abs=5e-6), (how, name)
        assert difference(tmp_path / str(number), saved) < 1e-4, how


def test_objectives_by_token_learn_under_sharding_what_plain_torch_does(
    model: str, tmp_path: Path
) -> None:
    """Whose head answers with several values a token, some of them without a gradient."""
    by_token = DpkdConfig(level="token", actions="sampled", states="student")
    sharded = {"ranks": 2, "zero_stage": 3}
    runs = [
        config(KdConfig(lm_weight=0.5), **sharded),
        config(by_token, dtype="bfloat16", **sharded),
    ]
    for run, learned in zip(runs, learned_by_ranks(2, runs, model, str(tmp_path)), strict=True):
        engine = TorchEngine()
        tuples = batches(run, 1)[0]
        loss = forward_backward(engine, tuples, run.objective, token_budget=512)["loss"]
        norm = torch.stack([gradient.norm() for gradient in engine.gradients()]).norm().item()
        tolerance = 1e-4 if run.learner.dtype == "float32" else 0.02
        assert learned.values[:2] == pytest.approx([loss, norm], rel=tolerance), run.objective.type


def test_bfloat16_learns_nearly_the_same(model: str, reference: tuple[Learned, Path]) -> None:
    worker = started_worker(config(dtype="bfloat16"), model)
    values = learn(worker, config(), 3)
    published, probe = worker.publish_weights(), worker.probe()
    worker.close()
    assert values == pytest.approx(reference[0].values[:-1], rel=0.01)
    assert published is not None
    assert {spec.dtype for spec in published[0].tensors} == {"bfloat16"}
    assert probe.tolerance == 0.15


def test_matrices_multiplied_in_bfloat16_teach_nearly_the_same_and_pushes_are_proved_exactly(
    model: str, reference: tuple[Learned, Path]
) -> None:
    medium = config(matmul_precision="medium")
    worker = started_worker(medium, model)
    learned = learn(worker, medium, 3)
    published, probe = worker.publish_weights(), worker.probe()
    worker.close()
    assert learned == pytest.approx(reference[0].values[:6], rel=0.05)
    assert torch.get_float32_matmul_precision() == "highest"
    assert published is not None
    manifest, weights = published[0], received(published)
    assert probe.tolerance == 1e-4
    student = AutoModelForCausalLM.from_pretrained(model).eval()
    student.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    probe_L = torch.from_numpy(manifest.probe_ids).long()
    logprobs_LV = student(probe_L[None]).logits[0].detach().log_softmax(-1)
    expected = logprobs_LV[:-1].gather(1, probe_L[1:, None])[:, 0]
    torch.testing.assert_close(torch.from_numpy(probe.logprobs), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_published_weights_hold_the_tied_head_and_reproduce_the_probe(
    family: str, tmp_path: Path
) -> None:
    worker = started_worker(config(zero_stage=3), saved_model(tmp_path / family, family))
    learn(worker, config(), 1)
    published, said = worker.publish_weights(), worker.probe()
    worker.close()
    assert published is not None
    manifest, weights = published[0], received(published)
    assert (manifest.version, said.version) == (1, 1) and said.checksum == checksum(published[1])
    assert "lm_head.weight" in weights
    assert {spec.dtype for spec in manifest.tensors} == {"float32"}
    student = AutoModelForCausalLM.from_pretrained(tmp_path / family).eval()
    student.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    probe = manifest.probe_ids
    batch = collate([[Segment(probe[:1], probe[1:])]], Asked(("gold",)))
    logprobs_N = ResponseScorer(student, logits_at_once=16 * VOCABULARY)(**batch.inputs)[0]
    torch.testing.assert_close(
        logprobs_N.detach(), torch.from_numpy(said.logprobs), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_restored_engine_goes_on_as_if_never_stopped(
    stage: int, model: str, tmp_path: Path
) -> None:
    worker = started_worker(config(zero_stage=stage), model)
    learn(worker, config(), 2)
    worker.save(str(tmp_path))
    expected = learn(worker, config(), 2)
    worker.close()
    worker = started_worker(config(zero_stage=stage), model)
    worker.load(str(tmp_path))
    assert worker.step == 2
    assert learn(worker, config(), 2) == expected
    worker.close()


def test_without_sharding_two_ranks_go_on_where_one_ended(model: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    worker = started_worker(config(), model)
    learn(worker, config(), 2)
    worker.save(kept)
    expected = learn(worker, config(), 3)
    worker.save_model(str(tmp_path / "one"))
    worker.close()
    (learned,) = learned_by_ranks(2, [config(ranks=2)], model, str(tmp_path), restored=kept)
    assert learned.values[:-1] == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert difference(tmp_path / "0", tmp_path / "one") < 1e-4


def _overflow_the_gradient(module: object, inputs: object, output: tuple[Tensor, ...]) -> None:
    output[0].register_hook(lambda gradient: gradient * float("inf"))


def test_non_finite_gradients_stop_before_the_weights(model: str) -> None:
    worker = started_worker(config(), model)
    parameter = worker.engine.scorer.head.weight
    before = parameter.detach().clone()
    score = worker.engine.scorer.head.register_forward_hook(_overflow_the_gradient)
    statistics = worker.forward_backward(*whole(pack(preference_tuples(2, corpus=True))))
    score.remove()
    assert statistics["nonfinite"] == 0  # the loss itself looks fine
    with pytest.raises(NonFiniteError, match="a gradient became NaN or infinite at learner step 0"):
        worker.optim_step()
    assert torch.equal(parameter, before) and worker.step == 0
    worker.close()


def test_a_non_finite_loss_stops_before_the_weights(model: str) -> None:
    worker = started_worker(config(), model)
    tuples = preference_tuples(2, corpus=True)
    response = tuples[0].student_response
    assert response is not None and response.teacher_logprobs_T is not None
    response.teacher_logprobs_T[0] = float("nan")
    assert worker.forward_backward(*whole(pack(tuples)))["nonfinite"] > 0
    with pytest.raises(NonFiniteError, match="the loss became NaN"):
        worker.optim_step()
    assert worker.step == 0
    worker.close()


@pytest.mark.parametrize(
    "learner",
    [{}, {"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3}, {"dtype": "bfloat16"}],
    ids=str,
)
def test_a_batch_that_is_given_up_leaves_no_trace(learner: dict[str, Any], model: str) -> None:
    worker = started_worker(config(**learner), model)
    expected = learn(worker, config(), 2)
    worker.close()
    worker = started_worker(config(**learner), model)
    found = learn(worker, config(), 1)
    score = worker.engine.scorer.head.register_forward_hook(_overflow_the_gradient)
    worker.forward_backward(*whole(pack(preference_tuples(5, corpus=True))))
    score.remove()
    with pytest.raises(NonFiniteError):
        worker.optim_step()
    worker.discard()
    second = batches(config(), 2)[1]
    found.append(worker.forward_backward(*whole(pack(second)))["loss"])
    found.append(worker.optim_step()["grad_norm"])
    assert found == expected and worker.step == 2
    worker.close()


def test_a_full_disk_is_a_checkpoint_error(model: str, tmp_path: Path) -> None:
    worker = started_worker(config(), model)
    (tmp_path / "engine").touch()  # where a folder is to be
    with pytest.raises(CheckpointError, match=r"cannot be written to .*; make room, or set"):
        worker.save(str(tmp_path))
    worker.close()


def test_a_model_whose_configuration_is_another_s_is_named(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**description, "vocab_size": 50}))
    worker = LearnerWorker(config(), model=str(folder), rank=0, world_size=1)
    with pytest.raises(DependencyError, match=r"holds .* with shape .* makes it \(50, "):
        worker.start(*worker.rendezvous())
    worker.close()


def test_a_model_folder_without_weights_is_named(tmp_path: Path) -> None:
    worker = LearnerWorker(config(), model=str(tmp_path), rank=0, world_size=1)
    address = worker.rendezvous()
    with pytest.raises((DependencyError, ConfigError), match=str(tmp_path)):
        worker.start(*address)
    worker.close()


def test_the_learning_rate_warms_up_and_follows_a_cosine_down() -> None:
    learner = LearnerConfig(warmup_steps=3, steps=7, min_learning_rate_ratio=0.1)
    factors = [learning_rate_factor(step, learner) for step in range(9)]
    expected = [0.25, 0.5, 0.75, 1.0, 0.8681981, 0.55, 0.2318019, 0.1, 0.1]
    assert factors == pytest.approx(expected)
