"""What comes before distillation: data, tokenizer, teacher, student, each made once and cached.

A model that the recipe makes, or warms up, is the result of a session with the SFT objective:
the same learner, queue and pipeline as the main job. Results are kept in `cache/models/<key>`,
where the key is a hash over everything that determines them.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from actors.model_folder import model_fingerprint, model_folder
from actors.prompts import PromptSource, texts
from actors.tokenizer import (
    load_tokenizer,
    require_same_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)
from configs.evaluation import EvaluationConfig
from configs.models import ModelSource
from configs.objective import SftConfig
from configs.run import RunConfig
from configs.student import StudentConfig
from learner.make_model import make_model
from orchestration.assembly import Models
from orchestration.context import context_of
from orchestration.embedded_tasks import write_embedded_tasks
from orchestration.run_folder import RunFolder
from orchestration.session import Inputs, Session, Surroundings

RECIPE_VERSION = 2
"""Raised when the code changes what the same settings make: old cache entries are then stale."""

RoleName = Literal["teacher", "student"]


def with_data(config: RunConfig) -> RunConfig:
    """Write the embedded tasks where the recipe asks for them, and name their files."""
    if config.data.train != "embedded":
        return config
    rows = {"train_rows": config.data.embedded_rows, "valid_rows": config.data.validation_rows}
    home = config.cache.expanduser() / "data" / f"embedded-{_digest({**rows, 'v': RECIPE_VERSION})}"
    if not home.exists():
        temporary = home.with_name(f".{home.name}.tmp-{os.getpid()}")
        temporary.mkdir(parents=True, exist_ok=True)
        write_embedded_tasks(temporary, seed=0, **rows)
        _publish(temporary, home)
    files = {"train": home / "train.jsonl", "validation": home / "valid.jsonl"}
    return config.model_copy(update={"data": config.data.model_copy(update=files)})


class Stages:
    """Makes what a recipe wants made; one method a kind of thing, in the order of their calls."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, announce: Callable[[str], None]
    ) -> None:
        """Take a configuration that ``with_data`` has resolved."""
        self._config = config
        self._folder = folder
        self._announce = announce
        self._models = config.cache.expanduser() / "models"
        self._train = Path(config.data.train)

    def tokenizer(self) -> Any:
        """Return the run's one tokenizer: a loaded model's own, else one trained on the data.

        Raises ``ConfigError`` when teacher and student come with different ones,
        ``DependencyError`` when a model's folder is not complete.
        """
        loaded = {
            role: source_tokenizer(source) for role, source in self._sources() if source.model
        }
        if len(loaded) == 2:
            require_same_tokenizer(loaded["teacher"], loaded["student"])
        if loaded:
            return next(iter(loaded.values()))
        home = self._models / f"tokenizer-{self._key({})}"
        if not home.exists():
            self._announce(f"training a tokenizer of {self._config.data.tokenizer_vocab} entries")
            temporary = home.with_name(f".{home.name}.tmp-{os.getpid()}")
            train_tokenizer(
                texts(self._config.data, self._train), self._config.data.tokenizer_vocab, temporary
            )
            _publish(temporary, home)
        return load_tokenizer(str(home))

    def prompts(self, tokenizer: Any, rows: int | None = None) -> PromptSource:
        """Open and check the data; raises ``DataError`` before Ray or any model starts.

        A prompt must leave room, in both models' contexts, for the longest response that any
        part of the run may draw.
        """
        config = self._config
        rooms = [config.student.sampling.max_new_tokens, config.evaluation.max_new_tokens or 1]
        if config.uses_teacher and config.teacher.response == "generate":
            rooms.append(config.teacher.sampling.max_new_tokens)
        return PromptSource(
            config.data,
            tokenizer,
            train=self._train,
            seed=config.seed,
            context=min(_context(source) for _, source in self._sources()),
            response_room=max(rooms),
            rows=rows,
        )

    async def inputs(self, tokenizer: Any, prompts: PromptSource, around: Surroundings) -> Inputs:
        """Make or find the models; returns what the main session starts from."""
        base = Inputs(models=Models(student=""), tokenizer=tokenizer, prompts=prompts)
        made = {
            role: await self._model(role, source, base, around) for role, source in self._sources()
        }
        return replace(base, models=Models(student=made["student"], teacher=made.get("teacher")))

    async def _model(
        self, role: RoleName, source: ModelSource, base: Inputs, around: Surroundings
    ) -> str:
        """Return the folder or hub name that ``role`` starts distillation from."""
        if source.warm_start is None:
            assert source.model is not None
            return source.model
        home = self._models / f"{role}-{self._key(self._recipe_of(role, source, base))}"
        if home.exists():
            self._announce(f"{role}: made before, taken from {home}")
            return str(home)
        start = source.model or self._random_model(role, source, base.tokenizer)
        config = sft_config(self._config, role, source, start, self._folder.path / "stages")
        folder = RunFolder(config)
        rows = source.warm_start.rows
        prompts = self.prompts(base.tokenizer, rows) if rows else base.prompts
        inputs = replace(base, models=Models(student=start), prompts=prompts)
        await Session(config, folder, inputs, around).run()
        if around.stop.signal:
            raise asyncio.CancelledError  # a model of which training was cut short is not kept
        _publish(folder.student, home)
        return str(home)

    def _sources(self) -> list[tuple[RoleName, ModelSource]]:
        sources: list[tuple[RoleName, ModelSource]] = [("student", self._config.student)]
        if self._config.uses_teacher:
            sources.insert(0, ("teacher", self._config.teacher))
        return sources

    def _random_model(self, role: RoleName, source: ModelSource, tokenizer: Any) -> str:
        assert source.make is not None
        folder = self._folder.path / "stages" / f"{role}-random"
        make_model(
            source.make,
            vocab_size=len(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            seed=_model_seed(role, self._config.seed),
            folder=folder,
        )
        tokenizer.save_pretrained(folder)
        return str(folder)

    def _recipe_of(self, role: RoleName, source: ModelSource, base: Inputs) -> Mapping[str, Any]:
        """Everything that determines a made model: how it begins, learns, and from what."""
        schedule = {"warmup_steps", "min_learning_rate_ratio"}
        optimizer = {"weight_decay", "adam_betas", "max_grad_norm", "dtype"}
        start = source.model and model_fingerprint(
            model_folder(source.model, revision=source.revision), dtype=source.dtype
        )
        return {
            "role": role,
            "seed": self._config.seed,
            "tokenizer": tokenizer_fingerprint(base.tokenizer),
            "start": start,
            "make": source.make and source.make.model_dump(),
            "warm_start": source.warm_start and source.warm_start.model_dump(),
            "learner": self._config.learner.model_dump(include=schedule | optimizer),
            "rows": [base.prompts.fingerprint, len(base.prompts)],
        }

    def _key(self, recipe: Mapping[str, Any]) -> str:
        files = {"train", "validation", "corpus"}  # these count by content, not by name
        data = self._config.data.model_dump(mode="json", exclude=files)
        train = _file_digest(self._train)
        return _digest({**recipe, "data": data, "train": train, "v": RECIPE_VERSION})


def sft_config(
    config: RunConfig, role: RoleName, source: ModelSource, start: str, output: Path
) -> RunConfig:
    """Derive the configuration of the SFT session that makes or warms up one model."""
    warm = source.warm_start
    assert warm is not None
    learner = config.learner.model_copy(
        update={
            "steps": warm.steps,
            "batch_size": warm.batch_size,
            "learning_rate": warm.learning_rate,
        }
    )
    return config.model_copy(
        update={
            "name": f"{role}-sft",
            "output": output,
            "existing": "replace",
            "student": StudentConfig(
                model=start, revision=source.revision, trust_remote_code=source.trust_remote_code
            ),
            "objective": SftConfig(),
            "learner": learner,
            # Gold responses do not age: the next batches may wait ready.
            "replay": config.replay.model_copy(update={"max_policy_lag": 2}),
            "evaluation": EvaluationConfig(every=0),
        }
    )


def _model_seed(role: RoleName, seed: int) -> int:
    """Teacher and student of one run must not start from the same random numbers."""
    return 2 * seed + (role == "student")


def _context(source: ModelSource) -> int:
    """Return the tokens that a model of the run takes at once, as its engine is told to."""
    own = source.make.context if source.make else context_of(source)
    asked = getattr(source, "max_model_len", None)
    return min(own, asked) if asked else own


def source_tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer of a model that is loaded; its folder must be complete."""
    assert source.model is not None
    if Path(source.model).expanduser().is_dir():
        model_folder(source.model)  # complete, or an error before anything starts
    return load_tokenizer(
        source.model, revision=source.revision, trust_remote_code=source.trust_remote_code
    )


def _publish(made: Path, home: Path) -> None:
    """Put a finished thing where the next run finds it, whole or not at all."""
    home.parent.mkdir(parents=True, exist_ok=True)
    staged = home.with_name(f".{home.name}.staged-{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(made, staged)
    if made.name.startswith("."):
        shutil.rmtree(made)
    try:
        staged.rename(home)
    except OSError:
        shutil.rmtree(staged)
        if not home.exists():  # else another run was quicker, with the same result
            raise


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _file_digest(path: Path) -> str:
    if not path.is_file():
        return ""  # the data reader says it better, in a moment
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
