"""What a weight push costs in memory, measured on real ranks of a model that weighs something.

`pytest -rP tests/learner/test_publishing.py` prints the numbers.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from configs.learner import LearnerConfig
from configs.run import RunConfig
from tests.learner.learner_builders import run_config, small_model
from tests.learner.memory import PEAK_RESET, PROMPT_RELEASE, Growth, growth
from tests.learner.ranks import Start, learn, on_ranks

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not PEAK_RESET.exists(), reason="only Linux lets a peak start anew"),
]

LAYERS, WIDTH = 12, 512
"""38 M parameters, 145 MiB, of which the largest is one thirty-sixth."""


def publish_after_two_steps(
    start: Start, config: RunConfig, model: str, lend: bool
) -> tuple[int, Growth]:
    """Return the bytes of the model's weights, and by how much a push makes this rank grow.

    DeepSpeed gathers as it does in the long run only once it has seen a whole step.
    """
    worker = start(config, model)
    learn(worker, config, 2)
    grown = growth(partial(worker.publish_weights, lend))
    parameters = worker.engine.scorer.parameters()
    copy = sum(4 * getattr(each, "ds_numel", each.numel()) for each in parameters)
    worker.close()
    return copy, grown


@pytest.mark.parametrize(
    ("stage", "lend", "copies"), [(2, False, 1.0), (2, True, 0.0), (3, True, 1.0)]
)
def test_a_push_takes_a_copy_of_the_weights_on_rank_0_if_it_must_and_none_elsewhere(
    stage: Literal[2, 3],
    lend: bool,
    copies: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in PROMPT_RELEASE.items():
        monkeypatch.setenv(name, value)
    small_model(n_layer=LAYERS, n_embd=WIDTH, n_head=8).save_pretrained(tmp_path)
    learner = LearnerConfig(batch_size=8, threads=1, ranks=2, zero_stage=stage)
    measured = on_ranks(2, publish_after_two_steps, run_config(learner), str(tmp_path), lend)
    for rank, (copy, (peak, kept)) in enumerate(measured):
        print(
            f"ZeRO {stage}, {'lent' if lend else 'copied'}, rank {rank}: weights {copy >> 20} MiB, "
            f"a push takes {peak / copy:.2f} of them at its peak and {kept / copy:.2f} in the end"
        )
    (copy, first), (_, second) = measured
    assert abs(first.kept - copies * copy) < 0.15 * copy  # what travels is really counted
    assert first.peak < (copies + 0.3) * copy
    assert second.peak < 0.3 * copy
