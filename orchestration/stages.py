"""What comes before distillation: the teacher and the student, each made once and cached.

A model that the recipe makes, or warms up, is the result of a session with the SFT objective:
the same learner, queue and pipeline as the main job. Results are kept in `cache/models/<key>`,
where the key is a hash over everything that determines them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.model_folder import model_fingerprint, model_folder
from actors.prompts import PromptSource
from actors.tokenizer import tokenizer_fingerprint
from configs.checkpoint import CheckpointConfig
from configs.evaluation import EvaluationConfig
from configs.models import ModelSource, WarmStart
from configs.negatives import NegativesConfig
from configs.objective import SftConfig
from configs.replay import ReplayConfig
from configs.run import RunConfig
from configs.student import StudentConfig
from learner.make_model import make_model
from orchestration.assembly import Models
from orchestration.crew import Inputs, Surroundings
from orchestration.inputs import RoleName, open_prompts, sources_of
from orchestration.made import key_of, publish
from orchestration.run_folder import RunFolder
from orchestration.session import Session


class Stages:
    """Makes the models that a recipe wants made, each by a session of its own."""

    def __init__(self, config: RunConfig, folder: RunFolder, around: Surroundings) -> None:
        """Take a configuration that ``with_data`` has resolved."""
        self._config = config
        self._home = folder.path / "stages"
        self._models = config.cache.expanduser() / "models"
        self._around = around

    async def inputs(self, tokenizer: Any, prompts: PromptSource) -> Inputs:
        """Make or find the models; returns what the main session starts from."""
        base = Inputs(models=Models(student=""), tokenizer=tokenizer, prompts=prompts)
        sources = sources_of(self._config)
        made = {role: await self._model(role, source, base) for role, source in sources}
        return replace(base, models=Models(student=made["student"], teacher=made.get("teacher")))

    async def _model(self, role: RoleName, source: ModelSource, base: Inputs) -> str:
        """Return the folder or hub name that ``role`` starts distillation from."""
        if source.warm_start is None:
            assert source.model is not None
            return source.model
        home = self._models / f"{role}-{key_of(self._recipe_of(role, source, base))}"
        if home.exists():
            self._around.progress.announce(f"{role}: made before, taken from {home}")
            return str(home)
        start = source.model or self._random_model(role, source, base.tokenizer)
        config = sft_config(self._config, role, source, start, self._home)
        folder = RunFolder(config)
        prompts = self._prompts(source.warm_start, base)
        inputs = replace(base, models=Models(student=start), prompts=prompts)
        await Session(config, folder, inputs, self._around).run()
        if self._around.stop.signal:
            raise asyncio.CancelledError  # a model of which training was cut short is not kept
        publish(folder.student, home)
        return str(home)

    def _prompts(self, warm: WarmStart, base: Inputs) -> PromptSource:
        """Return the rows of a warm start, each used once in its turn whatever the negatives."""
        if warm.rows is None and self._config.samples_per_prompt == 1:
            return base.prompts
        single = self._config.model_copy(update={"negatives": NegativesConfig()})
        return open_prompts(single, base.tokenizer, warm.rows)

    def _random_model(self, role: RoleName, source: ModelSource, tokenizer: Any) -> str:
        assert source.make is not None
        folder = self._home / f"{role}-random"
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
        files = {"train", "validation", "corpus"}  # these count by content, in the fingerprint
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
            "data": self._config.data.model_dump(mode="json", exclude=files),
            "rows": [base.prompts.fingerprint, len(base.prompts)],
        }


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
            "negatives": NegativesConfig(),
            "learner": learner,
            # Gold responses do not age: the next batches may wait ready. The run's own bounds
            # are made for another batch.
            "replay": ReplayConfig(max_policy_lag=2),
            "evaluation": EvaluationConfig(every=0, generate=False),
            # A stage that is cut short is made again: its result is kept, not its course.
            "checkpoint": CheckpointConfig(every=0),
            "resume": "never",
        }
    )


def _model_seed(role: RoleName, seed: int) -> int:
    """Teacher and student of one run must not start from the same random numbers."""
    return 2 * seed + (role == "student")
