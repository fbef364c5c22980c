"""The `README.md` that travels with a finished student."""

from collections.abc import Mapping
from pathlib import Path

from configs.run import RunConfig
from orchestration.evaluator import Scores

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [distillation, dpkd]
---

# {name}

A student distilled with `{objective}` (DPKD: Direct Preference Knowledge Distillation,
arXiv 2406.19774) from `{teacher}` in {steps} steps of {batch} pairs, seed {seed}.

{table}

Rouge-L and exact match are sampled at temperature 1 on {rows} validation rows; reverse KL is
to the teacher, in nats per response.

Load it with `AutoModelForCausalLM.from_pretrained(FOLDER)`, or serve it with `vllm serve FOLDER`.
"""


def write_model_card(folder: Path, config: RunConfig, evaluations: Mapping[str, Scores]) -> None:
    """Write what the model is, where it comes from and how it scored."""
    card = CARD.format(
        name=config.name,
        objective=config.objective.type,
        teacher=config.teacher.model or "a teacher made by the recipe",
        steps=config.learner.steps,
        batch=config.learner.batch_size,
        seed=config.seed,
        rows=config.data.validation_rows,
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
