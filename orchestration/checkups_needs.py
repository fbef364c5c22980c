"""What a recipe needs of the machine: a reservation for each role, memory, disk.

Sizes are estimates from the number of parameters. A process's own memory was measured in a
quickstart on a CPU: proportional set size, 4.7 GiB in all.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from actors.model_folder import weight_files
from configs.models import ModelSource
from configs.run import RunConfig
from configs.teacher import TeacherConfig
from orchestration.checkups import GIB
from orchestration.outline import parameters
from orchestration.role_counts import role_counts

BASE_GIB = 0.8
"""The driver, and Ray's own processes."""
ENGINE_GIB = 1.8
"""A process with vLLM and torch."""
TORCH_GIB = 0.5
"""A process with torch: a learner rank, a scorer."""
TRAINING_BYTES = 16
"""Of each parameter in a whole learner: weight, gradient and Adam's state; activations come on
top."""
TRAINING_SPLIT = {"float32": (8, 4, 4), "bfloat16": (12, 2, 2)}
"""Of them: the optimizer's, gradients and parameters, which ZeRO shards in this order; with
bfloat16 the optimizer keeps a float32 copy of the weights."""
WIDTH = {"float32": 4, "bfloat16": 2}
"""Bytes of a parameter in an engine."""
SPARE_BYTES = GIB
"""Disk for what is not the weights of a model: logs, samples, the teacher's responses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes of the machine's memory that all roles take together."""

    least: float
    """Processes and weights."""
    most: float
    """And full key-value caches."""
    unknown: tuple[str, ...] = ()
    """Models whose size is not known before they are downloaded."""


def folder_of(source: ModelSource) -> Path | None:
    """Return the folder of a model that is loaded; None: it is not on this machine."""
    from huggingface_hub import try_to_load_from_cache

    assert source.model is not None
    if (folder := Path(source.model).expanduser()).is_dir():
        return folder
    try:
        cached = try_to_load_from_cache(source.model, "config.json", revision=source.revision)
    except ValueError:  # HFValidationError: no hub has such a name
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def parameters_in(folder: Path) -> int:
    """Return the number of parameters of the weight files of a whole model."""
    from safetensors import safe_open

    count = 0
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            count += path.stat().st_size // 4
            continue
        with safe_open(path, framework="numpy") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
        count += sum(map(math.prod, shapes))
    return count


def parameters_of(source: ModelSource, vocabulary: int) -> int | None:
    """Return the number of parameters of a model of the run; None: it is not known."""
    from safetensors import SafetensorError

    if source.make:
        return parameters(source.make, vocabulary)
    folder = folder_of(source)
    try:
        return parameters_in(folder) if folder else None
    except SafetensorError:
        return None  # the check of the models says what is wrong with it


def memory_need(config: RunConfig) -> MemoryNeed:
    """Estimate the memory that the roles of a run take on one machine.

    The weights and caches of a role on a GPU are not counted. Where a model is trained before
    distillation, the learner holds it alone; the larger of the two moments counts.
    """
    sizes = model_sizes(config)
    counts = role_counts(config)
    shares = [(counts[role], share) for role, share in _shares(config, sizes).items()]
    least = BASE_GIB * GIB + sum(n * (share.process + share.weights) for n, share in shares)
    trained = [size or 0 for role, size in sizes.items() if getattr(config, role).warm_start]
    learner = 0 if config.cluster.learner.gpus else TRAINING_BYTES * max(trained, default=0)
    least = max(least, (BASE_GIB + TORCH_GIB) * GIB + learner)
    return MemoryNeed(
        least=least,
        most=least + sum(n * share.cache for n, share in shares),
        unknown=unknown_models(config, sizes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMemory:
    """Bytes that one actor of a role takes."""

    host: float
    """Of its machine's memory."""
    gpu: float
    """Of its GPUs' memory: weights, gradients and optimizer; engines' caches and activations come
    on top."""
    on_gpu: bool
    unknown: bool
    """Whether its model's size is not known: its weights are in neither number."""


def memory_by_role(config: RunConfig) -> dict[str, RoleMemory]:
    """Estimate the memory that one actor of each role takes."""
    sizes = model_sizes(config)
    shares = _shares(config, sizes)
    return {
        role: RoleMemory(
            host=shares[role].process + shares[role].weights + shares[role].cache,
            gpu=shares[role].on_gpu,
            on_gpu=getattr(config.cluster, role).gpus > 0,
            unknown=sizes.get("teacher" if role == "teacher" else "student", 0) is None,
        )
        for role, count in role_counts(config).items()
        if count
    }


def learner_bytes(config: RunConfig) -> float:
    """Return the bytes of each parameter on one rank, as the ZeRO stage shards them.

    ``learner.engine`` shards the optimizer at least, where parameters are in bfloat16.
    """
    learner = config.learner
    stage = max(learner.zero_stage, int(learner.dtype == "bfloat16"))
    parts = enumerate(TRAINING_SPLIT[learner.dtype], start=1)
    return sum(each / (learner.ranks if stage >= sharded else 1) for sharded, each in parts)


def unknown_models(config: RunConfig, sizes: dict[str, int | None]) -> tuple[str, ...]:
    """Name the models whose size is not known."""
    unknown = (role for role, size in sizes.items() if size is None)
    return tuple(f"the {role} {getattr(config, role).model}" for role in unknown)


def model_sizes(config: RunConfig) -> dict[str, int | None]:
    """Return the number of parameters of each model that the run holds."""
    from orchestration.inputs import sources_of  # brings transformers

    vocabulary = config.data.tokenizer_vocab
    return {role: parameters_of(source, vocabulary) for role, source in sources_of(config)}


def disk_needs(config: RunConfig) -> dict[str, float]:
    """Estimate the bytes that a run writes into each of ``places_of``; downloads come on top."""
    sizes = {role: size or 0 for role, size in model_sizes(config).items()}
    made = [4 * size for role, size in sizes.items() if getattr(config, role).warm_start]
    kept = config.checkpoint.keep + 1 if config.checkpoint.every else 0
    return {
        "run folder": 4 * sizes["student"] + 2 * sum(made) + SPARE_BYTES,
        "cache": 2 * sum(made) + SPARE_BYTES,
        "checkpoints": kept * TRAINING_BYTES * sizes["student"],
    }


def unknown_on_disk(config: RunConfig) -> set[str]:
    """Return the places of ``disk_needs`` that also get weights of unknown size."""
    unknown = [role for role, size in model_sizes(config).items() if size is None]
    made = any(getattr(config, role).warm_start for role in unknown)
    kept = "student" in unknown and config.checkpoint.every > 0
    places = {"run folder": made or "student" in unknown, "cache": made, "checkpoints": kept}
    return {place for place, more in places.items() if more}


def _shares(config: RunConfig, sizes: dict[str, int | None]) -> "dict[str, _Share]":
    """Return what one actor of each role takes."""
    cluster, student = config.cluster, sizes["student"] or 0
    weights = student * WIDTH[config.student.dtype]
    cache = math.ceil(config.student.kv_cache_gib) * GIB  # vLLM takes whole GiB
    shares = {
        "sampler": _share(ENGINE_GIB, weights, cache, gpus=cluster.sampler.gpus),
        "offline": _share(ENGINE_GIB, weights, cache, gpus=cluster.offline.gpus),
        "reference": _share(TORCH_GIB, weights, gpus=cluster.reference.gpus),
        "learner": _share(TORCH_GIB, learner_bytes(config) * student, gpus=cluster.learner.gpus),
        "teacher": _share(TORCH_GIB),  # one that asks a server
    }
    if isinstance(config.teacher, TeacherConfig):
        copies = 2 if config.teacher.scorer == "torch" else 1  # one drawn from, one that scores
        weights = copies * (sizes.get("teacher") or 0) * WIDTH[config.teacher.dtype]
        cache = math.ceil(config.teacher.kv_cache_gib) * GIB
        shares["teacher"] = _share(ENGINE_GIB, weights, cache, gpus=cluster.teacher.gpus)
    return shares


class _Share(NamedTuple):
    """Bytes that one actor takes: of the machine's memory, and of a GPU's."""

    process: float
    weights: float
    cache: float
    on_gpu: float


def _share(process_gib: float, weights: float = 0, cache: float = 0, *, gpus: float = 0) -> _Share:
    if gpus:
        return _Share(process_gib * GIB, 0, 0, weights)
    return _Share(process_gib * GIB, weights, cache, 0)
