"""What a run will do, and about how long each stage takes: said before anything starts."""

from configs.models import MakeModel, ModelSource
from configs.objective import DpkdConfig
from configs.objectives.base import Objective
from configs.run import RunConfig
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig, TeacherConfig

CPU_FLOPS = 6e10
"""Sustained training speed of a small model on one laptop-class core, floating-point
operations per second: measured on the quickstart's teacher, good to a factor of two."""
STEP_SECONDS = 0.05
"""What an SFT step costs beside its arithmetic."""
PAIRS_PER_SECOND = 60
"""Of the whole loop with models as small as the quickstart's, on two cores."""
START_SECONDS = 15
"""Bringing the parts of a stage up."""
TOKENS_PER_ROW = 80
"""Prompt and response of the recipes that make their models."""


def describe(config: RunConfig) -> str:
    """Return the plan as lines of text."""
    lines = [f"plan: {config.name}, seed {config.seed}", f"  data      {_data(config)}"]
    for role in ("teacher", "student"):
        if role == "student" or config.uses_teacher:
            lines.append(f"  {role:<9} {_source(config, getattr(config, role))}")
    lines += [f"  learn     {_learning(config)}", f"  roles     {_roles(config)}"]
    return "\n".join(lines)


def parameters(make: MakeModel, vocabulary: int) -> int:
    """Return about how many parameters a made model has: 12 h² a layer, and the embeddings."""
    return 12 * make.layers * make.hidden_size**2 + vocabulary * make.hidden_size


def _data(config: RunConfig) -> str:
    train = "embedded tasks" if config.data.train == "embedded" else str(config.data.train)
    return f"{train}; {config.data.validation_rows} rows for evaluation"


def _source(config: RunConfig, source: ModelSource | OpenAiTeacherConfig) -> str:
    if isinstance(source, OpenAiTeacherConfig):
        return f"{source.model}, served at {source.base_url} (tokens: {source.tokens})"
    warm = source.warm_start
    what = f"load {source.model}"
    if source.make:
        count = parameters(source.make, config.data.tokenizer_vocab)
        what = f"make a {source.make.family} of {count / 1e6:.2f} M parameters"
    if warm is None:
        return what
    what += f", {warm.steps} SFT steps of {warm.batch_size} rows"
    if source.make is None:
        return what
    arithmetic = 6 * count * warm.batch_size * TOKENS_PER_ROW / CPU_FLOPS
    seconds = START_SECONDS + warm.steps * (arithmetic + STEP_SECONDS)
    return f"{what}: about {_duration(seconds)} on two cores, unless cached"


def _learning(config: RunConfig) -> str:
    objective, learner = config.objective, config.learner
    what = f"{objective.type}, {learner.steps} steps of {learner.batch_size}"
    what += f" ({_settings(objective)})"
    if config.learns_from_student:
        what += f"; {_freshness(config)}"
    made = isinstance(config.teacher, TeacherConfig) and config.teacher.make
    if config.learns_from_student and config.student.make and made:
        seconds = 2 * START_SECONDS + learner.steps * learner.batch_size / PAIRS_PER_SECOND
        what += f": about {_duration(seconds)}, starts and evaluations included"
    return what


def _settings(objective: Objective) -> str:
    """Return the settings of the objective that count, its equation first where it has one."""
    settings = objective.model_dump(exclude={"type"})
    named = []
    if isinstance(objective, DpkdConfig) and objective.level == "sequence":
        named.append("Eq 9" if objective.length_normalised else "Eq 8")
        settings = objective.model_dump(include={"beta", "lm_weight"})
    settings["lm_weight"] = settings.pop("lm_weight")  # last, as in the formula
    return ", ".join([*named, *(f"{name} {_plain(value)}" for name, value in settings.items())])


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _freshness(config: RunConfig) -> str:
    """How old the negatives may be."""
    kind, lag = config.negatives.type, config.replay.max_policy_lag
    if kind == "initial":
        return "negatives of the initial student"
    if kind == "snapshot":
        return f"negatives of a snapshot, renewed every {config.negatives.every} steps"
    share = config.negatives.offline_share
    offline = f", {share:.0%} of the negatives offline" if share else ""
    return (_lockstep(config.student.sampling) if lag == 0 else f"policy lag up to {lag}") + offline


def _lockstep(sampling: Sampling) -> str:
    """Say how close to the policy lag 0 is: another temperature or top-p is another policy."""
    if (sampling.temperature, sampling.top_p) == (1, 1):
        return "lockstep, exactly on-policy"
    top_p = "" if sampling.top_p == 1 else f" and top-p {sampling.top_p:g}"
    return f"lockstep, y_s drawn at temperature {sampling.temperature:g}{top_p}"


def _teacher_engine(config: RunConfig) -> str:
    if isinstance(config.teacher, TeacherConfig):
        return "vLLM and torch"
    return f"served at {config.teacher.base_url}"


def _roles(config: RunConfig) -> str:
    where = "this process" if config.cluster.local else "Ray actors"
    parts = [f"{config.learner.ranks} learner (DeepSpeed, ZeRO {config.learner.zero_stage})"]
    if config.uses_sampler:
        parts.append(f"{config.student.replicas} sampler (vLLM)")
    if config.uses_teacher:
        parts.append(f"{config.teacher.replicas} teacher ({_teacher_engine(config)})")
    if config.draws_offline:
        parts.append("1 sampler of the initial student (vLLM)")
    if "reference_logprobs" in config.objective.needs:
        parts.append("1 scorer by the initial student (torch)")
    return f"{', '.join(parts)}; in {where}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
