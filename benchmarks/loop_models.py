"""What `benchmarks.loop_vs_trl` measures with: two trained models and prompts, made once.

    FOLDER/student/  FOLDER/teacher/  FOLDER/prompts.jsonl   {"prompt": text, "ids": [...]}

The models are made by this project's own stages, by SFT on the embedded tasks, so they end their
responses by themselves, mostly after some 30 tokens, a few only at the longest. A small tokenizer
is trained on the same text. The models have more rows than it has entries, as many published ones
do: it is the rows that cost time, in embedding, head, softmax, gradients and pushes.

The run that makes them also fills the cache of the teacher's responses to the prompts that are
measured with.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loop_run import RECIPE, run_loop
from configs.load import load
from configs.models import MakeModel, WarmStart
from learner.make_model import make_model
from orchestration.inputs import open_prompts, open_tokenizer, with_data
from orchestration.made import content_digest, draft_of, key_of, publish


class Sized(NamedTuple):
    """A model to be made, and how it is trained."""

    make: MakeModel
    start: WarmStart


class Case(NamedTuple):
    """A student and a teacher, and how long they are measured."""

    vocabulary: int
    student: Sized
    teacher: Sized
    steps: int
    warm_up: int
    """Steps of these that are not counted."""


CASES = {
    "tiny": Case(
        vocabulary=2_000,
        student=Sized(
            MakeModel(hidden_size=128, layers=4, heads=4, context=192, initializer_range=0.08),
            WarmStart(steps=160, batch_size=32, learning_rate=4e-3),
        ),
        teacher=Sized(
            MakeModel(hidden_size=256, layers=8, heads=8, context=192, initializer_range=0.05),
            WarmStart(steps=300, batch_size=16, learning_rate=1e-3),
        ),
        steps=40,
        warm_up=10,
    ),
    "small": Case(
        vocabulary=32_000,
        student=Sized(
            MakeModel(hidden_size=224, layers=5, heads=7, context=192, initializer_range=0.05),
            WarmStart(steps=160, batch_size=16, learning_rate=2e-3),
        ),
        teacher=Sized(
            MakeModel(hidden_size=512, layers=8, heads=8, context=192, initializer_range=0.04),
            WarmStart(steps=120, batch_size=8, learning_rate=1e-3),
        ),
        steps=24,
        warm_up=6,
    ),
}
"""tiny: 1.1 M and 6.9 M parameters; small: 10.2 M and 41.7 M."""
_MADE = ("make.family=gpt2", "warm_start.steps=1")


def made(name: str) -> Path:
    """Return the folder of a case, made now or before."""
    case, cache = CASES[name], load().cache.expanduser()
    key = key_of({"case": repr(case), "recipe": content_digest(RECIPE)})
    home = cache / "benchmarks" / f"loop-{name}-{key}"
    if not home.exists():
        print(f"making {home} (several minutes, once)", flush=True)
        draft = draft_of(home)
        _make(case, draft)
        publish(draft, home)
    return home


def measured_steps(case: Case, lag: int) -> list[str]:
    """Return the overrides of a run, so that as many steps as are counted draw responses.

    Where sampling is ahead of learning by ``lag`` steps the last ones find their responses drawn.
    """
    return [f"learner.steps={case.steps + lag}", f"replay.max_policy_lag={lag}"]


def models_in(folder: Path, suffix: str = "") -> list[str]:
    """Return the overrides that name a case's models."""
    return [f"{role}.model={folder / role}{suffix}" for role in ("student", "teacher")]


def _make(case: Case, draft: Path) -> None:
    for role, sized in (("student", case.student), ("teacher", case.teacher)):
        random_model(sized.make, case.vocabulary, role, draft / f"{role}-random")
    overrides = models_in(draft, "-random")
    for role, start in (("student", case.student.start), ("teacher", case.teacher.start)):
        given = start.model_dump(exclude_none=True).items()
        overrides += [f"{role}.warm_start.{key}={value}" for key, value in given]
    # One step more, for the lag: its prompts must be in the teacher's cache, too.
    seen = run_loop([*measured_steps(case, 1), *overrides, "learner.threads=2"])
    for role, made_there in seen.summary["models"].items():
        shutil.copytree(made_there, draft / role)
        shutil.rmtree(draft / f"{role}-random")
    rows = _prompts(case, draft)
    (draft / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def random_model(make: MakeModel, vocabulary: int, role: str, folder: Path) -> None:
    """Write a model of random weights, with so many rows, and the runs' tokenizer."""
    tokenizer = _tokenizer()
    make_model(
        make,
        vocab_size=vocabulary,
        eos_token_id=tokenizer.eos_token_id,
        seed=int(role == "student"),
        folder=folder,
    )
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    """Return the tokenizer that a run trains which makes both of its models."""
    both = [f"{role}.{key}" for role in ("student", "teacher") for key in _MADE]
    return open_tokenizer(with_data(load(str(RECIPE), both)), print)


def _prompts(case: Case, draft: Path) -> Sequence[dict[str, Any]]:
    """Return the prompts of a run in its order, as text and as the ids that it is given as."""
    config = with_data(load(str(RECIPE), models_in(draft)))
    tokenizer = open_tokenizer(config, print)
    taken = open_prompts(config, tokenizer).take(case.steps * config.learner.batch_size)
    return [row_of(tokenizer, prompt.prompt_ids_P.tolist()) for prompt in taken]


def row_of(tokenizer: Any, ids: list[int]) -> dict[str, Any]:
    """Return a prompt as text, of which the other side makes the same ids."""
    text = tokenizer.decode(ids)
    assert tokenizer(text)["input_ids"] == ids, f"{text!r} is tokenised otherwise"
    return {"prompt": text, "ids": ids}
