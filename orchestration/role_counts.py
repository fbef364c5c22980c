"""How many actors of each role a run has, and what they reserve; imports nothing heavy."""

from configs.cluster import ClusterConfig, RoleResources
from configs.run import RunConfig


def role_counts(config: RunConfig) -> dict[str, int]:
    """Return the number of actors of each role that the objective needs."""
    return {
        "sampler": config.student.replicas if config.uses_sampler else 0,
        "teacher": config.teacher.replicas if config.uses_teacher else 0,
        "learner": config.learner.ranks,
        "offline": int(config.draws_offline),
        "reference": int("reference_logprobs" in config.objective.needs),
    }


def initial_counts(config: RunConfig) -> dict[str, int]:
    """Return the number of actors of each role without which the run does not begin."""
    counts = role_counts(config)
    first = config.student.initial_replicas
    return counts | {"sampler": min(counts["sampler"], first or counts["sampler"])}


def reserved(cluster: ClusterConfig, counts: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return what all actors of each role reserve together: CPU, GPU and custom resources."""
    return {role: _times(count, getattr(cluster, role)) for role, count in counts.items()}


def _times(count: int, each: RoleResources) -> dict[str, float]:
    named = {"CPU": each.cpus, "GPU": each.gpus, **each.custom}
    return {name: count * amount for name, amount in named.items()}
