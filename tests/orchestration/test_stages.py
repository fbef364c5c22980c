"""What a warm start is made from; whole runs of it are in `tests/e2e`."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.load import load
from orchestration import stages
from orchestration.crew import Inputs
from orchestration.inputs import open_prompts, open_tokenizer, with_data


@pytest.mark.parametrize("rows", ["null", "20"])
def test_a_warm_start_uses_every_row_once_however_many_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    taken: dict[str, list[int]] = {}

    class Session:
        def __init__(self, config, folder, inputs: Inputs, around) -> None:
            self._name, self._student, self._inputs = config.name, folder.student, inputs

        async def run(self) -> None:
            taken[self._name] = [prompt.row for prompt in self._inputs.prompts.take(8)]
            self._student.mkdir()

    monkeypatch.setattr(stages, "Session", Session)
    overrides = ["negatives.samples=2", f"student.warm_start.rows={rows}"]
    sizes = ["data.embedded_rows=100", "data.tokenizer_vocab=300", "data.validation_rows=4"]
    sizes += ["teacher.make.context=256", "student.make.context=256"]
    config = with_data(load("quickstart", [f"cache={tmp_path}", *sizes, *overrides]))
    tokenizer = open_tokenizer(config, print)
    around = SimpleNamespace(
        progress=SimpleNamespace(announce=print), stop=SimpleNamespace(signal=0)
    )
    made = stages.Stages(config, SimpleNamespace(path=tmp_path / "run"), around)  # type: ignore[arg-type]
    inputs = asyncio.run(made.inputs(tokenizer, open_prompts(config, tokenizer)))

    assert {name: len(set(seen)) for name, seen in taken.items()} == {
        "teacher-sft": 8,
        "student-sft": 8,
    }
    assert len({prompt.row for prompt in inputs.prompts.take(8)}) == 4


def test_a_warm_start_is_not_held_to_the_bounds_of_the_run_s_queue(tmp_path: Path):
    config = load("quickstart", ["replay.max_tuples=8", "learner.batch_size=8"])
    stage = stages.sft_config(config, "student", config.student, "somewhere", tmp_path)
    assert stage.replay.max_tuples >= 3 * stage.learner.batch_size
