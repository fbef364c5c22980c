"""A whole weight push against a plain copy of the same bytes.

    python -m benchmarks.push [--runs 5]

A student of 63 M parameters (GPT-2's shape, float32, 253 MB) in a real learner (DeepSpeed) and a
real sampler (vLLM), two Ray actors of one thread each, as the quickstart has them on two cores.
Measured is a push as the pipeline makes it (``WeightSync.publish`` and ``load``): from asking the
learner until the sampler could draw, after a learner step each time. Its proof, which comes with
the next draw, is asked for between two pushes, and not in the time. It is held against numpy's copy
of as many bytes into freshly allocated memory (``array.copy()``, whose pages the kernel has yet to
hand out), in one process. A copy into memory that was written to before is faster: that ratio is
printed, too. Each run is the median of ``PUSHES`` pushes and of as many copies. The first push of
all, which teaches the sampler where everything lives, is not measured.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import command_line, in_turns, report
from configs.load import load
from configs.objective import SftConfig
from configs.packing import pack
from configs.run import RunConfig
from configs.wire import PreferenceTuple, Prompt, Uid
from orchestration.payloads import Picked
from orchestration.ray_auth import settle_authentication

PUSHES = 5
SHAPE: dict[str, Any] = {
    "n_embd": 768,
    "n_layer": 8,
    "n_head": 12,
    "n_positions": 512,
    "vocab_size": 8192,
}


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("push", 5, __doc__)
    config = load("quickstart", ["student.threads=1", "learner.threads=1"])
    config = config.model_copy(update={"objective": SftConfig()})
    settle_authentication(config.cluster)  # before Ray is imported
    from orchestration.launcher import make_launcher

    with tempfile.TemporaryDirectory() as folder:
        _make_student(folder)
        with make_launcher(config.cluster, "push") as launcher, asyncio.Runner() as runner:
            push, stop, nbytes = runner.run(_start(config, folder, launcher))
            copies = Copies(nbytes)
            turns = in_turns(runs, lambda: runner.run(push()), copies.fresh)
            try:
                missed = report("push", _ratios(turns, copies))
            finally:
                runner.run(stop())
    return missed


class Copies:
    """Plain copies of ``nbytes``."""

    def __init__(self, nbytes: int) -> None:
        self._bytes = np.random.default_rng(0).integers(256, size=nbytes, dtype=np.uint8)
        self._touched = self._bytes.copy()
        self.nbytes = nbytes

    def fresh(self) -> float:
        """Return the seconds of a copy into new memory."""
        return _median(self._bytes.copy)

    def touched(self) -> float:
        """Return the seconds of a copy into memory that was written to before."""
        return _median(lambda: np.copyto(self._touched, self._bytes))


def _ratios(turns: Any, copies: Copies) -> Any:
    for push, copy in turns:
        touched = copies.touched()
        print(
            f"{copies.nbytes / 1e6:.0f} MB: push {push * 1e3:.0f} ms, copy {copy * 1e3:.0f} ms; "
            f"into touched memory {touched * 1e3:.0f} ms, ratio {touched / push:.3f}"
        )
        yield copy / push


def _median(copy: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(PUSHES):
        start = time.perf_counter()
        copied = copy()
        seconds.append(time.perf_counter() - start)
        del copied
    return statistics.median(seconds)


async def _start(config: RunConfig, student: str, launcher: Any) -> tuple[Any, Any, int]:
    """Bring learner and sampler up; return what pushes, what ends them, and the bytes of a push."""
    from orchestration.assembly import Models, Placing
    from orchestration.learner_group import LearnerGroup
    from orchestration.weight_sync import WeightSync

    place = Placing.of_a_run(config, Models(student=student), None, launcher)
    roles = [place.learner(0, None), place.sampler("sampler-0")]
    timeout = config.cluster.start_timeout_seconds
    await asyncio.gather(*(role.call("build", timeout=timeout) for role in roles))
    learner = LearnerGroup(roles[:1])
    await learner.start(timeout)
    sync = WeightSync(learner, roles[1:])
    first = await sync.push()

    async def push() -> float:
        seconds = []
        for _ in range(PUSHES):
            await learner.learn(_batch())
            seconds.append((await sync.push()).seconds)
        return statistics.median(seconds)

    async def stop() -> None:
        await asyncio.gather(*(role.stop() for role in roles))

    return push, stop, first.nbytes


def _batch() -> Picked:
    """Enough to learn something from: the weights of every push are new."""
    ids = np.arange(1, 17, dtype=np.int32)
    prompt = Prompt(uid=Uid(0, 0, 0), row=0, prompt_ids_P=ids, gold_ids_T=ids)
    return Picked([(0, 0)], [pack([PreferenceTuple(prompt=prompt)])])


def _make_student(folder: str) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    ids: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    GPT2LMHeadModel(GPT2Config(**SHAPE, **ids)).save_pretrained(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
