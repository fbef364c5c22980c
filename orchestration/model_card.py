"""The `README.md` that travels with a finished student."""

from collections.abc import Mapping
from pathlib import Path

from configs.run import RunConfig
from orchestration.evaluator import Scores

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [{objective}]
---

# {name}

{origin} objective `{objective}`, {steps} steps of {batch}, seed {seed}, by DPKD-on-Ray.

{table}

`rouge_l` and `exact_match` are sampled at temperature 1 on the validation rows;
`reverse_kl_nats` is KL to the teacher per response; `nll_nats` is of the gold responses, per token.

Load it with `AutoModelForCausalLM.from_pretrained(FOLDER)`, or serve it with `vllm serve FOLDER`.
"""
TRAINED = "A model trained on the gold responses by supervised fine-tuning:"
DISTILLED = "A student distilled from {teacher}:"


def write_model_card(
    folder: Path, config: RunConfig, steps: int, evaluations: Mapping[str, Scores]
) -> None:
    """Write what the model is, where it comes from and how it scored."""
    teacher = config.teacher.model or "a teacher that the recipe made"
    supervised = not config.learns_from_teacher
    card = CARD.format(
        name=config.name,
        objective=config.objective.type,
        origin=TRAINED if supervised else DISTILLED.format(teacher=teacher),
        steps=steps,
        batch=config.learner.batch_size,
        seed=config.seed,
        table=_table(evaluations),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _table(evaluations: Mapping[str, Scores]) -> str:
    names = sorted({name for scores in evaluations.values() for name in scores.rounded()})
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for when, scores in evaluations.items():
        cells = [f"{scores.rounded().get(name, '')}" for name in names]
        lines.append(f"| {when} | {' | '.join(cells)} |")
    return "\n".join(lines)
