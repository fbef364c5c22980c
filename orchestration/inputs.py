"""What a run reads: data files, the one tokenizer, prompts; checked before a model starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from actors.limits import Limits, declared_limits
from actors.model_folder import model_folder
from actors.prompts import PromptSource, texts
from actors.tokenizer import load_tokenizer, require_same_tokenizer, train_tokenizer
from configs.models import ModelSource
from configs.run import RunConfig
from configs.teacher import TeacherConfig
from orchestration.embedded_tasks import write_embedded_tasks
from orchestration.made import content_digest, draft_of, key_of, publish

RoleName = Literal["teacher", "student"]


def sources_of(config: RunConfig) -> list[tuple[RoleName, ModelSource]]:
    """Return the models that this run itself holds, in the order in which they are made."""
    sources: list[tuple[RoleName, ModelSource]] = [("student", config.student)]
    if config.uses_teacher and isinstance(config.teacher, TeacherConfig):
        sources.insert(0, ("teacher", config.teacher))
    return sources


def with_data(config: RunConfig) -> RunConfig:
    """Write the embedded tasks where the recipe asks for them, and name their files."""
    if config.data.train != "embedded":
        return config
    rows = {"train_rows": config.data.embedded_rows, "valid_rows": config.data.validation_rows}
    home = config.cache.expanduser() / "data" / f"embedded-{key_of(rows)}"
    if not home.exists():
        draft = draft_of(home)
        write_embedded_tasks(draft, seed=0, **rows)
        publish(draft, home)
    validation = config.data.validation or home / "valid.jsonl"
    files = {"train": home / "train.jsonl", "validation": validation}
    return config.model_copy(update={"data": config.data.model_copy(update=files)})


def open_tokenizer(config: RunConfig, announce: Callable[[str], None]) -> Any:
    """Return the run's one tokenizer: a loaded model's own, else one trained on the data.

    Raises ``ConfigError`` when teacher and student come with different ones,
    ``DependencyError`` when a model's folder is not complete.
    """
    loaded = {role: _tokenizer_of(source) for role, source in sources_of(config) if source.model}
    if len(loaded) == 2:
        require_same_tokenizer(loaded["teacher"], loaded["student"])
    if loaded:
        return next(iter(loaded.values()))
    return load_tokenizer(str(_trained_tokenizer(config, announce)))


def _trained_tokenizer(config: RunConfig, announce: Callable[[str], None]) -> Path:
    """Return the folder of the tokenizer that the training file gives, made now or before."""
    data, train = config.data, Path(config.data.train)
    recipe = {
        "train": content_digest(train),
        "data": data.model_dump(mode="json", exclude={"train", "validation", "corpus"}),
    }
    home = config.cache.expanduser() / "models" / f"tokenizer-{key_of(recipe)}"
    if not home.exists():
        announce(f"training a tokenizer of {data.tokenizer_vocab} entries")
        draft = draft_of(home)
        train_tokenizer(texts(data, train), data.tokenizer_vocab, draft)
        publish(draft, home)
    return home


def open_prompts(config: RunConfig, tokenizer: Any, rows: int | None = None) -> PromptSource:
    """Open and check the data; raises ``DataError``. ``rows``: only the first so many train.

    A prompt must leave room, in every model's context, for the longest response that any part
    of the run may draw. Raises ``ConfigError`` where a model knows fewer tokens than the
    tokenizer, ``DependencyError`` where its configuration cannot be read.
    """
    limits = [_limits(role, source) for role, source in sources_of(config)]
    for each in limits:
        each.check_tokenizer(tokenizer)
    rooms = [config.student.sampling.max_new_tokens, config.evaluation.max_new_tokens or 1]
    if config.learns_from_teacher and config.response_source == "generate":
        rooms.append(config.teacher.sampling.max_new_tokens)
    return PromptSource(
        config.data,
        tokenizer,
        train=Path(config.data.train),
        seed=config.seed,
        context=min(each.context for each in limits),
        response_room=max(rooms),
        rows=rows,
        samples_per_prompt=config.samples_per_prompt,
    )


def _limits(role: RoleName, source: ModelSource) -> Limits:
    """Return what a model of the run takes at once, as its engine is told to."""
    asked = getattr(source, "max_model_len", None)
    if source.make:  # for the run's tokenizer
        context = source.make.context
        return Limits(owner=role, vocab_size=None, context=min(context, asked or context))
    assert source.model is not None
    return declared_limits(
        source.model,
        owner=role,
        trust_remote_code=source.trust_remote_code,
        revision=source.revision,
        max_model_len=asked,
    )


def _tokenizer_of(source: ModelSource) -> Any:
    """Load the tokenizer of a model that is loaded; its folder must be complete."""
    assert source.model is not None
    if Path(source.model).expanduser().is_dir():
        model_folder(source.model)
    return load_tokenizer(
        source.model, revision=source.revision, trust_remote_code=source.trust_remote_code
    )
