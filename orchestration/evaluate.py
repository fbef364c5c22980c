"""`python -m orchestration.evaluate MODEL DATA`: score a finished model on a data file."""

import argparse
import asyncio
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.ray_auth import settle_authentication
from orchestration.roles import Role

if TYPE_CHECKING:
    from orchestration.assembly import Placing
    from orchestration.evaluator import Evaluator


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the scores of a model as JSON; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        recipe = options.recipe or _recipe_beside(options.model)
        config = _config(options, recipe)
        found = asyncio.run(_evaluate(config, options.teacher is not None, options.noise))
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    about = {"model": options.model, "data": str(options.data), "recipe": recipe}
    scores = found[0] if options.noise is None else {"noise": found}
    print(json.dumps({**about, **scores}, indent=2))  # noqa: T201
    return 0


def _recipe_beside(model: str) -> str:
    """Return the configuration of the run that made ``model``: its prompts must be formatted so."""
    config = Path(model).expanduser().parent / "config.yaml"
    return str(config) if config.exists() else "quickstart"


def _config(options: argparse.Namespace, recipe: str) -> RunConfig:
    """Put other models and data into a recipe's settings; overrides come last."""
    return load(
        recipe,
        [
            "name=evaluate",
            "objective={type: dpkd}",
            "negatives={}",
            "teacher.type=model",
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


async def _evaluate(
    config: RunConfig, with_teacher: bool, sigmas: Sequence[float] | None
) -> list[dict[str, Any]]:
    """Return the scores of the model, or of a noisy copy for each of ``sigmas``."""
    settle_authentication(config.cluster)
    from orchestration.assembly import Models, Placing
    from orchestration.evaluator import Evaluator
    from orchestration.inputs import open_prompts, open_tokenizer
    from orchestration.launcher import make_launcher

    assert config.student.model and config.teacher.model
    models = Models(student=config.student.model, teacher=config.teacher.model)
    tokenizer = open_tokenizer(config, lambda _: None)
    prompts = open_prompts(config, tokenizer)
    evaluator = Evaluator(
        config=config.evaluation,
        prompts=prompts.validation(),
        tokenizer=tokenizer,
        max_new_tokens=config.evaluation.max_new_tokens or config.student.sampling.max_new_tokens,
    )
    with make_launcher(config.cluster, namespace="dpkd-evaluate") as launcher:
        launcher.require({"sampler": 1, "teacher": int(with_teacher)})
        place = Placing(config, models, tokenizer, launcher, launcher.cores)
        teacher = place.teacher("teacher-0") if with_teacher else None
        try:
            return await _measure(place, evaluator, teacher, sigmas)
        finally:
            if teacher:
                await teacher.stop()


async def _measure(
    place: "Placing", evaluator: "Evaluator", teacher: Role | None, sigmas: Sequence[float] | None
) -> list[dict[str, Any]]:
    """Start one sampler after another, the teacher beside the first, and measure each."""
    timeout = place.config.cluster.start_timeout_seconds
    found, starting = [], [teacher] if teacher else []
    for number, (about, model) in enumerate(_versions(place.config, sigmas)):
        models = dataclasses.replace(place.models, student=model)
        sampler = dataclasses.replace(place, models=models).sampler(f"sampler-{number}")
        try:
            starting.append(sampler)
            await asyncio.gather(*(role.call("build", timeout=timeout) for role in starting))
            scores, _ = await evaluator.student([sampler], teacher)
            found.append({**about, **scores.rounded()})
        finally:
            await sampler.stop()
        starting = []
    return found


def _versions(
    config: RunConfig, sigmas: Sequence[float] | None
) -> Iterator[tuple[dict[str, float], str]]:
    """Yield the model as it is, or one noisy copy at a time, with what to say of it."""
    assert config.student.model
    if sigmas is None:
        yield {}, config.student.model
        return
    from orchestration.noisy_copy import write_noisy_copy

    for sigma in sigmas:
        with tempfile.TemporaryDirectory(prefix="dpkd-noise-") as folder:
            write_noisy_copy(config.student.model, Path(folder), sigma=sigma, seed=config.seed)
            yield {"sigma": sigma}, folder


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.evaluate",
        description="Rouge-L and exact match, greedy and sampled; with --teacher reverse KL too.",
    )
    parser.add_argument("model", help="model folder in Hugging Face layout, or hub name")
    parser.add_argument("data", type=Path, help="JSONL, JSON, CSV or Parquet file")
    parser.add_argument("--teacher", help="teacher to measure the reverse KL to")
    parser.add_argument("--rows", type=_positive, default=64, help="rows to use (default: 64)")
    parser.add_argument(
        "--noise",
        type=_sigmas,
        metavar="SIGMA,...",
        help="measure copies with Gaussian noise of so many standard deviations of each weight "
        "tensor instead; drawn from the recipe's seed",
    )
    parser.add_argument(
        "--recipe",
        help="recipe whose prompt template and sampling hold (default: the config.yaml of the run "
        "that the model lies in, else quickstart)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe overrides")
    return parser.parse_intermixed_args(arguments)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1 row is needed")
    return value


def _sigmas(text: str) -> list[float]:
    sigmas = [float(part) for part in text.split(",")]
    if not all(0 <= sigma < math.inf for sigma in sigmas):
        raise argparse.ArgumentTypeError("standard deviations of 0 or more are needed")
    return sigmas


if __name__ == "__main__":
    sys.exit(main())
