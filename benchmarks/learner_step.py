"""A learner step against the barest loop in torch over the same number of tokens.

    python -m benchmarks.learner_step [--runs 9]

Ours: ``LearnerWorker.forward_backward`` and ``optim_step`` on 32 pairs (DPKD Eq 9, statistics,
checks, DeepSpeed, clipping, AdamW), from packed tuples to new weights. Held against: a model of the
same weights, fed the pairs' sequences cut into rows of one length, so that nothing is padded; full
logits at as many positions as there are response tokens; mean negative log-likelihood; backward;
``torch.optim.AdamW``. It computes every prompt twice, for y_t and for y_s, as a loop over sequences
does. A student of 10 M parameters with a vocabulary of 32k, prompts of 32 and responses of 24
tokens in the mean, one thread.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.figures import command_line, in_turns, report
from benchmarks.learner_work import save_student, started_worker, tuples
from configs.packing import pack
from configs.wire import PreferenceTuple

VOCABULARY = 32_000


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("learner_step", 9, __doc__)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_student(Path(folder), vocabulary=VOCABULARY, hidden=256, layers=2)
        pairs = tuples(32, vocabulary=VOCABULARY, prompt=32, response=24, spread=0.4)
        ours, bare = our_step(Path(folder), pairs), bare_step(Path(folder), pairs)
        for warm_up in (ours, bare):
            warm_up()
        return report("learner_step", (a / b for a, b in in_turns(runs, ours, bare)))


def our_step(
    model: Path, pairs: list[PreferenceTuple], *, share_prompts: bool = True
) -> Callable[[], float]:
    """Return what makes one step of the real learner, and says how many seconds it took."""
    worker, packed = started_worker(model, share_prompts=share_prompts), pack(pairs)
    places = [(0, place) for place in range(len(packed))]

    def step() -> float:
        start = time.perf_counter()
        worker.forward_backward(places, packed)
        worker.optim_step()
        return time.perf_counter() - start

    return step


def bare_step(folder: Path, pairs: Sequence[PreferenceTuple]) -> Callable[[], float]:
    """Return what makes one step of the bare loop, and says how many seconds it took."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    rows, scored = _rows(pairs)

    def step() -> float:
        start = time.perf_counter()
        hidden = model.base_model(input_ids=rows, use_cache=False).last_hidden_state
        hidden = hidden[:, :-1].flatten(0, 1)[-scored:]
        targets = rows[:, 1:].flatten()[-scored:]
        logprobs = model.lm_head(hidden).log_softmax(-1)
        loss = -logprobs.gather(1, targets[:, None]).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def _rows(pairs: Sequence[PreferenceTuple]) -> tuple[torch.Tensor, int]:
    """Return the sequences' tokens in rows of their mean length, and how many are responses'."""
    responses = [
        (pair.prompt.prompt_ids_P, response.ids_T)
        for pair in pairs
        for response in (pair.teacher_response, pair.student_response)
        if response is not None
    ]
    ids = np.concatenate([part for sequence in responses for part in sequence])
    width = round(len(ids) / len(responses))
    count = len(ids) // width
    rows = torch.from_numpy(ids[: count * width].astype(np.int64)).view(count, width)
    return rows, sum(len(response) for _, response in responses)


if __name__ == "__main__":
    sys.exit(main())
