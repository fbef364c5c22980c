"""`python -m orchestration.evaluate MODEL DATA`: score a finished model on a data file."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.ray_auth import settle_authentication


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the scores of a model as JSON; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        scores = asyncio.run(_evaluate(_config(options), options.teacher is not None))
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(json.dumps({"model": options.model, "data": str(options.data), **scores}, indent=2))  # noqa: T201
    return 0


def _config(options: argparse.Namespace) -> RunConfig:
    """Put other models and data into the quickstart's settings; overrides come last."""
    return load(
        "quickstart",
        [
            "name=evaluate",
            f"student.model={options.model}",
            "student.make=null",
            "student.warm_start=null",
            f"teacher.model={options.teacher or options.model}",
            "teacher.make=null",
            "teacher.warm_start=null",
            f"data.train={options.data}",
            f"data.validation={options.data}",
            f"data.validation_rows={options.rows}",
            *options.overrides,
        ],
    )


async def _evaluate(config: RunConfig, with_teacher: bool) -> dict[str, Any]:
    settle_authentication(config.cluster)
    from actors.prompts import PromptSource
    from actors.tokenizer import load_tokenizer, require_same_tokenizer
    from orchestration.assembly import Models, sampler_role, teacher_role
    from orchestration.context import common_context
    from orchestration.evaluator import Evaluator
    from orchestration.launcher import make_launcher

    assert config.student.model and config.teacher.model
    models = Models(student=config.student.model, teacher=config.teacher.model)
    tokenizer = load_tokenizer(models.student)
    if with_teacher:
        require_same_tokenizer(tokenizer, load_tokenizer(config.teacher.model))
    prompts = PromptSource(
        config.data,
        tokenizer,
        train=Path(config.data.train),
        seed=config.seed,
        context=common_context(models),
        response_room=config.student.sampling.max_new_tokens,
    )
    evaluator = Evaluator(
        config=config.evaluation,
        prompts=prompts.validation(),
        tokenizer=tokenizer,
        max_new_tokens=config.evaluation.max_new_tokens or config.student.sampling.max_new_tokens,
    )
    with make_launcher(config.cluster, namespace="dpkd-evaluate") as launcher:
        launcher.require({"sampler": 1, "teacher": int(with_teacher)})
        sampler = sampler_role(config, models, launcher, launcher.cores, 0)
        teacher = (
            teacher_role(config, models, launcher, launcher.cores, 0) if with_teacher else None
        )
        roles = [role for role in (sampler, teacher) if role]
        try:
            await asyncio.gather(*(role.call("build") for role in roles))
            scores, _ = await evaluator.student([sampler], teacher)
        finally:
            await asyncio.gather(*(role.stop() for role in roles))
    return scores.rounded()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.evaluate",
        description="Rouge-L and exact match, greedy and sampled; with --teacher reverse KL too.",
    )
    parser.add_argument("model", help="model folder in Hugging Face layout, or hub name")
    parser.add_argument("data", type=Path, help="JSONL, JSON, CSV or Parquet file")
    parser.add_argument("--teacher", help="teacher to measure the reverse KL to")
    parser.add_argument("--rows", type=int, default=64, help="rows to use (default: 64)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe overrides")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
