"""What our side of sampling costs: the sampler's tokens/s against bare vLLM's.

    python -m benchmarks.sampler [--runs 7]

A GPT-2 of 1.1 M parameters with a vocabulary of 2k (random weights: hardly a response ends before
its 64 tokens), 32 prompts of 16 tokens, seeds, one thread. ``StudentSampler.generate`` makes
requests of prompts and trajectories of answers, and drives the engine itself; held against it is
``LLM.generate`` on the very same engine with the same ``SamplingParams`` and token ids, which are
made before the clock starts. A round of each comes first. Each run is the median of ``CALLS``
calls of each, in turns, and the prefix cache is emptied before every one of them.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from actors.vllm_environment import vllm_environment
from benchmarks.figures import command_line, in_turns, report
from configs.sampling import Sampling
from configs.student import StudentConfig
from configs.wire import Prompt, Uid

CALLS, PROMPTS, PROMPT_TOKENS, NEW_TOKENS, VOCABULARY = 5, 32, 16, 64, 2048
SHAPE: dict[str, Any] = {
    "n_embd": 128,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 128,
}


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("sampler", 7, __doc__)
    os.environ.update(vllm_environment(threads=1, kv_cache_gib=1))  # before vLLM is imported
    with tempfile.TemporaryDirectory() as folder:
        make_student(folder, VOCABULARY)
        sampler = make_sampler(folder)
        ours, bare = _calls(sampler)
        _paired(ours, bare, lambda: None)
        return report("sampler", _ratios(runs, ours, bare, sampler))


def _ratios(
    runs: int, ours: Callable[[], int], bare: Callable[[], int], sampler: Any
) -> Iterator[float]:
    for _ in range(runs):
        ours_rate, bare_rate = _paired(ours, bare, sampler._engine._running().reset_prefix_cache)
        print(f"sampler {ours_rate:.0f} tokens/s, bare vLLM {bare_rate:.0f}")
        yield ours_rate / bare_rate


def _paired(
    ours: Callable[[], int], bare: Callable[[], int], before: Callable[[], Any]
) -> tuple[float, float]:
    """Return the tokens/s of both, medians of ``CALLS`` calls."""

    def rate(call: Callable[[], int]) -> float:
        before()
        start = time.perf_counter()
        tokens = call()
        return tokens / (time.perf_counter() - start)

    rates = list(in_turns(CALLS, lambda: rate(ours), lambda: rate(bare)))
    return statistics.median(r for r, _ in rates), statistics.median(r for _, r in rates)


def _calls(sampler: Any) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return our call and the bare one; both answer with the number of tokens."""
    from actors.student import request_seed

    prompts, engine = make_prompts(VOCABULARY), sampler._engine._running()
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=NEW_TOKENS)
    seeds = [request_seed(0, prompt.uid) for prompt in prompts]
    requests = [{"prompt_token_ids": prompt.prompt_ids_P.tolist()} for prompt in prompts]
    parameters = sampler._engine._drawing(sampling, seeds)

    def ours() -> int:
        return sum(len(each.response.ids_T) for each in sampler.generate(prompts).trajectories)

    def bare() -> int:
        outputs = engine.generate(requests, parameters, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return ours, bare


def make_prompts(vocabulary: int) -> list[Prompt]:
    """Return prompts of random tokens."""
    ids = np.random.default_rng(0).integers(3, vocabulary, (PROMPTS, PROMPT_TOKENS), np.int32)
    return [
        Prompt(uid=Uid(0, index, 0), row=index, prompt_ids_P=row) for index, row in enumerate(ids)
    ]


def make_sampler(folder: str) -> Any:
    """Start an engine with the model of ``folder``."""
    from actors.student import StudentSampler

    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=NEW_TOKENS)
    return StudentSampler(StudentConfig(sampling=sampling), model=folder, seed=0)


def make_student(folder: str, vocabulary: int) -> None:
    """Write a model of random weights to ``folder``."""
    from transformers import GPT2Config, GPT2LMHeadModel

    ids: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = GPT2Config(**SHAPE, **ids, vocab_size=vocabulary)
    GPT2LMHeadModel(config).save_pretrained(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
