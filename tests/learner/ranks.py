"""Runs learner ranks in processes of their own, without Ray."""

import multiprocessing
import os
import queue
from typing import Any

from configs.run import RunConfig
from configs.wire import PreferenceTuple
from learner.worker import LearnerWorker
from tests.learner.learner_builders import tuples_for


def started_worker(config: RunConfig, model: str) -> LearnerWorker:
    """Return a lone rank, ready to learn."""
    worker = LearnerWorker(config, model=model, rank=0, world_size=1)
    worker.start(*worker.rendezvous())
    return worker


def batches(config: RunConfig, count: int) -> list[list[PreferenceTuple]]:
    """Return batches of 7 tuples: an odd one for two ranks."""
    return [tuples_for(config.objective, 7, seed=seed, corpus=True) for seed in range(count)]


def learn(worker: LearnerWorker, config: RunConfig, steps: int) -> list[float]:
    """Make some steps; return the loss and the gradient norm of each, one after the other."""
    values = []
    for batch in batches(config, steps):
        values.append(worker.forward_backward(batch)["loss"])
        values.append(worker.optim_step()["grad_norm"])
    return values


def two_ranks(
    configs: list[RunConfig], model: str, folder: str, *, restored: str | None = None
) -> list[list[float]]:
    """Learn three steps under each configuration; return what rank 0 saw, with the final nll.

    They begin where the checkpoint ``restored`` ended.
    """
    context = multiprocessing.get_context("spawn")
    addresses, results = context.Queue(), context.Queue()
    processes = [
        context.Process(
            target=_rank, args=(rank, configs, model, folder, restored, addresses, results)
        )
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    try:
        return results.get(timeout=240)
    except queue.Empty:
        raise AssertionError("the ranks did not finish") from None
    finally:
        for process in processes:
            process.join(timeout=30)
            process.kill()


def _rank(  # noqa: PLR0917 - the arguments of a process are positional
    rank: int,
    configs: list[RunConfig],
    model: str,
    folder: str,
    restored: str | None,
    addresses: Any,
    results: Any,
) -> None:
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    seen = []
    for number, config in enumerate(configs):
        worker = LearnerWorker(config, model=model, rank=rank, world_size=2)
        if rank == 0:
            address, port = worker.rendezvous()
            addresses.put((address, port))
        else:
            address, port = addresses.get(timeout=60)
        worker.start(address, port)
        if restored:
            worker.load(restored)
        values = learn(worker, config, 3)
        prompts = [item.prompt for item in batches(config, 1)[0][:3]]
        values.append(worker.nll(prompts)["nll"])
        published = worker.publish_weights()
        assert (published is None) == (rank == 1)
        worker.save_model(f"{folder}/{number}")
        worker.close()
        seen.append(values)
    if rank == 0:
        results.put(seen)
