"""TRL's on-policy `DistillationTrainer` on a folder of models and prompts; prints one line of JSON.

    .venv-peer/bin/python benchmarks/peer_trl.py FOLDER --steps 40 --warm-up 10

Runs in the environment that `make bench-peer` makes, and imports nothing of this project.
Each of TRL's steps draws one response a prompt from the student as it is then (transformers'
`generate`, until every response has ended or is 64 tokens long), has the teacher score it, takes
the reverse KL over the response's positions, goes backward, and makes an AdamW step.

Set as TRL is fastest here without another algorithm: no gradient checkpointing, no dropout, no
checkpoint, no progress bar, all of the machine's cores; float32, as the other side has it, unless
`--bf16` asks for autocast. What it did is checked, not believed: one generation a step, the
prompts' own token ids, no response beyond the longest, and weights that have moved.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DistillationConfig, DistillationTrainer  # pyright: ignore[reportMissingImports]


class Clock(TrainerCallback):
    """Notes when each step had ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note one."""
        self.ends.append(time.perf_counter())


class Watched(DistillationTrainer):
    """Counts what is generated, of how many tokens, and the seconds that it takes."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.prompts: list[list[int]] = []
        self.lengths: list[list[int]] = []
        self.seconds: list[float] = []
        super().__init__(*given, **named)

    def _generate_single_turn(self, prompt_ids: Any, *given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        drawn = super()._generate_single_turn(prompt_ids, *given, **named)
        self.seconds.append(time.perf_counter() - began)
        self.prompts += prompt_ids
        self.lengths.append([len(response) for response in drawn])
        return drawn


def main() -> None:
    """Run, check and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = [json.loads(line) for line in (options.folder / "prompts.jsonl").open()]
    rows = rows[: options.steps * options.batch]
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        trainer = _trainer(options, rows, clock, output)
        before = _weight_sum(trainer.model)
        trainer.train()
    _check(options, rows, trainer, before)
    seconds = clock.ends[-1] - clock.ends[options.warm_up - 1]
    steady = slice(options.warm_up, None)
    lengths = [length for batch in trainer.lengths[steady] for length in batch]
    counted = options.steps - options.warm_up
    said = {
        "prompts_per_second": counted * options.batch / seconds,
        "step_seconds": seconds / counted,
        "generating_seconds": sum(trainer.seconds[steady]) / counted,
        "response_tokens": sum(lengths) / len(lengths),
        "longest_of_batch": sum(map(max, trainer.lengths[steady])) / counted,
        "steps": options.steps,
        "warm_up": options.warm_up,
        "threads": options.threads,
        "bf16": options.bf16,
        "attention": options.attention,
    }
    print(json.dumps(said), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="holds student, teacher and prompts.jsonl")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warm-up", type=int, default=10, help="steps that are not counted")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--attention", default="sdpa", choices=("sdpa", "eager"))
    return parser.parse_args()


def _trainer(options: argparse.Namespace, rows: list[Any], clock: Clock, output: str) -> Watched:
    settings = DistillationConfig(
        output_dir=output,
        use_cpu=True,
        bf16=options.bf16,
        gradient_checkpointing=False,
        per_device_train_batch_size=options.batch,
        max_steps=options.steps,
        max_completion_length=options.new_tokens,
        learning_rate=options.learning_rate,
        shuffle_dataset=False,
        beta=1.0,
        temperature=1.0,
        logging_steps=options.steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    load = {"dtype": torch.float32, "attn_implementation": options.attention}
    return Watched(
        model=AutoModelForCausalLM.from_pretrained(options.folder / "student", **load),
        teacher_model=AutoModelForCausalLM.from_pretrained(options.folder / "teacher", **load),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(
            options.folder / "student", padding_side="left"
        ),
        callbacks=[clock],
    )


def _check(options: argparse.Namespace, rows: list[Any], trainer: Watched, before: float) -> None:
    """Raise AssertionError unless every step drew from the newest student, as it was told to."""
    assert len(trainer.lengths) == options.steps, "not one generation a step"
    assert trainer.prompts == [row["ids"] for row in rows], "prompts are tokenised otherwise"
    lengths = [length for batch in trainer.lengths for length in batch]
    assert max(lengths) <= options.new_tokens, "a response is too long"
    assert min(lengths) < options.new_tokens, "no response has ended by itself"
    assert _weight_sum(trainer.model) != before, "the student has not learned"


def _weight_sum(model: Any) -> float:
    return sum(parameter.detach().double().abs().sum().item() for parameter in model.parameters())


if __name__ == "__main__":
    main()
