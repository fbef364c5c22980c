"""Finds what a run goes on from, and refuses what does not belong to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.model_folder import model_fingerprint, model_folder
from actors.prompts import PromptSource
from actors.tokenizer import tokenizer_fingerprint
from configs.errors import ConfigError, DataError
from configs.models import ModelSource
from configs.run import RunConfig
from configs.teacher import TeacherConfig
from orchestration.assembly import Models
from orchestration.checkpoints import (
    Checkpoint,
    Checkpoints,
    checkpoint_folder,
    open_checkpoint,
)
from orchestration.ledger import is_sealed

FREE = (
    *("name", "output", "cache", "existing", "resume", "checkpoint", "supervision"),
    *("cluster", "monitoring", "evaluation"),
    *("learner.steps", "learner.ranks", "learner.threads", "learner.micro_batch_tokens"),
    *("learner.logits_at_once", "learner.share_prompts", "learner.activation_checkpointing"),
    "learner.max_nonfinite_steps",
    *("replay.lease_seconds", "replay.max_tuples", "replay.max_bytes", "replay.max_dropped"),
    *("student.replicas", "student.threads", "student.batch_size", "student.kv_cache_gib"),
    *("student.gpu_memory_utilization", "student.tensor_parallel", "student.weight_transfer"),
    *("teacher.replicas", "teacher.threads", "teacher.kv_cache_gib", "teacher.cache"),
    *("teacher.gpu_memory_utilization", "teacher.tensor_parallel", "teacher.base_url"),
    *("teacher.key_file", "teacher.key_env", "teacher.timeout_seconds", "teacher.max_retries"),
    *("teacher.concurrency", "teacher.requests_per_minute"),
)
"""Settings that may change at a resume: where and how fast a run goes on, and for how long."""
BY_CONTENT = ("data.train", "data.validation", "data.corpus", "student.model", "teacher.model")
CONTENTS = ("data", "tokenizer", "models.student", "models.teacher")
"""Paths: what they hold is compared, not where it lies."""
FREE_IF_DETERMINISTIC = (
    *("name", "output", "cache", "existing", "resume", "checkpoint", "supervision", "monitoring"),
    *("cluster", "evaluation", "learner.steps"),
)
"""The same where every bit is to be as it would have been."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run goes on from."""

    checkpoint: Checkpoint
    same_run: bool
    """Whether the ledger in the run folder is that of the checkpoint."""


def find_origin(config: RunConfig, run: Path, announce: Callable[[str], None]) -> Origin | None:
    """Return what the run in folder ``run`` goes on from; None: it begins.

    Raises DataError when what is asked for is damaged, ConfigError when there is nothing at a
    given path.
    """
    if config.resume == "never":
        return None
    home = checkpoint_folder(config, run)
    has_history = (run / "config.yaml").exists()
    if config.resume != "auto":
        checkpoint = _at(Path(config.resume).expanduser(), config, announce)
        same = has_history and checkpoint.path.parent.resolve() == home.resolve()
    else:
        checkpoint, same = _newest(config, home, announce), True
        if checkpoint is None:
            if has_history:
                announce(f"{run} ended before its first checkpoint: the run begins again")
            return None
    if same and not is_sealed(run / "events.jsonl", checkpoint.state["seal"]):
        raise DataError(
            f"{run / 'events.jsonl'} does not begin as it did at checkpoint {checkpoint.path}: it "
            f"is missing, edited or damaged; go on as a run of another name: name=ANOTHER "
            f"resume={checkpoint.path}"
        )
    return Origin(checkpoint=checkpoint, same_run=same)


def facts_of(
    config: RunConfig, prompts: PromptSource, tokenizer: Any, models: Models
) -> dict[str, Any]:
    """Return what a checkpoint must agree in with the run that goes on from it.

    ``models.teacher`` is missing without a teacher in a folder; a served one's fingerprint is
    known once it answers.
    """
    facts = {
        "config": config.model_dump(mode="json"),
        "data": [prompts.fingerprint, len(prompts)],
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "models.student": _fingerprint(models.student, config.student),
    }
    if models.teacher and isinstance(config.teacher, TeacherConfig):
        facts["models.teacher"] = _fingerprint(models.teacher, config.teacher)
    return facts


def check_facts(old: Mapping[str, Any], new: Mapping[str, Any], accept: Sequence[str]) -> None:
    """Raise ConfigError that names every difference that is neither free nor accepted."""
    deterministic = new["config"]["deterministic"]
    free = (*(FREE_IF_DETERMINISTIC if deterministic else FREE), *BY_CONTENT, *accept)
    before, now = dict(_flat(old["config"])), dict(_flat(new["config"]))
    changed = [
        f"{key} is {now.get(key)!r} and was {before.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _is_under(key, free)
    ]
    changed += [
        f"{key} has other content than it had"
        for key in CONTENTS
        if key in new and old.get(key) != new[key] and key not in accept
    ]
    changed += _resharded(old["config"], new["config"])
    if changed:
        raise ConfigError(
            f"the checkpoint belongs to another run: {'; '.join(changed)}. Undo that, or accept "
            "it by name with checkpoint.accept=[KEY], or begin afresh with resume=never"
        )


def _resharded(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, now = old["learner"], new["learner"]
    if before["ranks"] == now["ranks"] or _stage(before) == 0:
        return []
    return [
        f"learner.ranks is {now['ranks']} and was {before['ranks']}, under ZeRO stage "
        f"{_stage(before)}, which splits the optimizer over ranks (only stage 0 goes on with "
        "another number)"
    ]


def _stage(learner: Mapping[str, Any]) -> int:
    """Return the ZeRO stage that the engine really uses (see ``learner.engine``)."""
    return max(learner["zero_stage"], 1 if learner["dtype"] == "bfloat16" else 0)


def _at(path: Path, config: RunConfig, announce: Callable[[str], None]) -> Checkpoint:
    """Return the checkpoint at ``path``, or the newest sound one of the run there."""
    if (path / "manifest.json").exists() or path.name.startswith("step-"):
        return open_checkpoint(path)
    for folder in (path / "checkpoints", path):
        found = _newest(config, folder, announce)
        if found:
            return found
    raise ConfigError(
        f"resume={path}: no checkpoint there; give a checkpoint (.../step-N), a run folder that "
        "has some, or auto"
    )


def _newest(config: RunConfig, folder: Path, announce: Callable[[str], None]) -> Checkpoint | None:
    return Checkpoints(folder, keep=config.checkpoint.keep).newest_sound(announce)


def _fingerprint(model: str, source: ModelSource) -> str:
    revision = source.revision if model == source.model else None
    return model_fingerprint(model_folder(model, revision=revision), dtype=source.dtype)


def _flat(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(section, dict) and section:
        for key, value in section.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, section


def _is_under(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
