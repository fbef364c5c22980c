"""Runs learner ranks in processes of their own, without Ray."""

import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
import torch

from actors.weights import by_name, check_parts
from configs.checksum import checksum
from configs.packing import pack
from configs.run import RunConfig
from configs.wire import PackedBatch, PreferenceTuple, WeightManifest
from learner.worker import LearnerWorker
from tests.learner.learner_builders import tuples_for

Start = Callable[[RunConfig, str], LearnerWorker]
"""Gives this rank's worker of a configuration and a model, joined with the others."""


class Learned(NamedTuple):
    """What rank 0 saw while all learned."""

    values: list[float]
    """Loss and gradient norm of every step, then the nll on some prompts."""
    weights: dict[str, np.ndarray]
    """What was published in the end."""


def started_worker(config: RunConfig, model: str) -> LearnerWorker:
    """Return a lone rank, ready to learn."""
    worker = LearnerWorker(config, model=model, rank=0, world_size=1)
    worker.start(*worker.rendezvous())
    return worker


def batches(config: RunConfig, count: int) -> list[list[PreferenceTuple]]:
    """Return batches of 7 tuples: neither two nor three ranks share them evenly."""
    return [tuples_for(config.objective, 7, seed=seed, corpus=True) for seed in range(count)]


def whole(batch: PackedBatch) -> tuple[list[tuple[int, int]], PackedBatch]:
    """Return what a rank is told that is to learn from one batch as it is."""
    return [(0, place) for place in range(len(batch))], batch


def learn(worker: LearnerWorker, config: RunConfig, steps: int) -> list[float]:
    """Make some steps; return the loss and the gradient norm of each, one after the other."""
    values = []
    for batch in batches(config, steps):
        values.append(worker.forward_backward(*whole(pack(batch)))["loss"])
        values.append(worker.optim_step()["grad_norm"])
    return values


def learn_and_publish(worker: LearnerWorker, config: RunConfig) -> Learned:
    """Make three steps, look at the nll, publish."""
    values = learn(worker, config, 3)
    prompts = [item.prompt for item in batches(config, 1)[0][:3]]
    values.append(worker.nll(prompts)["nll"])
    published, probe = worker.publish_weights(), worker.probe()
    assert published is None or probe.checksum == checksum(published[1])
    return Learned(values, received(published))


def received(published: tuple[WeightManifest, list[np.ndarray]] | None) -> dict[str, np.ndarray]:
    """Return the tensors of a push by name, raised to float32; none where none was published."""
    if published is None:
        return {}
    manifest, parts = published
    check_parts(manifest, parts)
    return {
        spec.name: torch.from_numpy(part)
        .view(getattr(torch, spec.dtype))
        .view(spec.shape)
        .float()
        .numpy()
        for spec, part in by_name(manifest.tensors, parts)
    }


def learned_by_ranks(
    count: int, configs: list[RunConfig], model: str, folder: str, *, restored: str | None = None
) -> list[Learned]:
    """Learn three steps under each configuration on ``count`` ranks; save the models by number.

    They begin where the checkpoint ``restored`` ended.
    """
    answers = on_ranks(count, _learn_all, configs, model, folder, restored)
    for others in answers[1:]:
        assert not any(learned.weights for learned in others), "only rank 0 publishes"
    return answers[0]


def on_ranks(count: int, job: Callable[..., Any], *args: Any) -> list[Any]:
    """Run ``job(start, *args)`` on ``count`` ranks, processes each; return answers by rank."""
    context = multiprocessing.get_context("spawn")
    addresses, answers = context.Queue(), context.Queue()
    processes = [
        context.Process(target=_rank, args=(rank, count, addresses, answers, job, args))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        return _awaited(processes, answers)
    finally:
        for process in processes:
            process.join(timeout=30)
            process.kill()


def _awaited(processes: Sequence[BaseProcess], answers: Any) -> list[Any]:
    found: dict[int, Any] = {}
    for _ in range(220):
        try:
            rank, answer = answers.get(timeout=1)
            found[rank] = answer
        except queue.Empty:
            if any(process.exitcode for process in processes):
                for process in processes:
                    process.kill()
                raise AssertionError("a rank failed; it says why itself") from None
        if len(found) == len(processes):
            return [found[rank] for rank in range(len(processes))]
    raise AssertionError("the ranks did not finish")


def _rank(  # noqa: PLR0917 - the arguments of a process are positional
    rank: int, count: int, addresses: Any, answers: Any, job: Callable[..., Any], args: Any
) -> None:
    os.environ["MASTER_ADDR"] = "127.0.0.1"

    def start(config: RunConfig, model: str) -> LearnerWorker:
        worker = LearnerWorker(config, model=model, rank=rank, world_size=count)
        if rank == 0:
            address, port = worker.rendezvous()
            for _ in range(count - 1):
                addresses.put((address, port))
        else:
            address, port = addresses.get(timeout=60)
        worker.start(address, port)
        return worker

    answers.put((rank, job(start, *args)))


def _learn_all(
    start: Start, configs: list[RunConfig], model: str, folder: str, restored: str | None
) -> list[Learned]:
    seen = []
    for number, config in enumerate(configs):
        worker = start(config, model)
        if restored:
            worker.load(restored)
        seen.append(learn_and_publish(worker, config))
        worker.save_model(f"{folder}/{number}")
        worker.close()
    return seen
