"""The entry: `python -m orchestration.run [RECIPE] [key=value ...]`.

Nothing heavy is imported before the configuration is known to be right, so that `--help`,
`--dry-run` and a beginner's mistake answer at once.
"""

import argparse
import sys
from collections.abc import Sequence

from configs.errors import DependencyError, DpkdError
from configs.load import dump, load, recipe_names
from configs.run import RunConfig
from orchestration.ray_auth import settle_authentication
from orchestration.say import say

OURS = ("configs", "actors", "learner", "orchestration")
USAGE = """\
examples:
  python -m orchestration.run                         the quickstart: whole, on this machine
  python -m orchestration.run e2e data.train=my.jsonl
  python -m orchestration.run my.yaml student.model=DIR teacher.model=DIR learner.steps=500
  python -m orchestration.run gpt2_dolly --dry-run    print the resolved configuration and plan
  ray job submit --working-dir . -- python -m orchestration.run quickstart
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a recipe; returns the process's exit code (2 configuration, 3 dependency, 4 data,
    5 non-finite, 130/143 signals).
    """
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = load(options.recipe, options.overrides)
        if options.dry_run:
            return _dry_run(config)
        settle_authentication(config.cluster)
        from orchestration.job import run_job

        return run_job(config)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in OURS:
            raise
        print(  # noqa: T201
            f"error: the package {error.name} is not installed for {sys.executable}; "
            "run `make setup` and use .venv/bin/python (or activate .venv)",
            file=sys.stderr,
        )
        return DependencyError.exit_code
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _dry_run(config: RunConfig) -> int:
    from orchestration.plan import describe

    say(dump(config))
    say(describe(config))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.run",
        description="Distil a teacher into a student by preference distillation (DPKD).",
        epilog=USAGE + f"\nrecipes: {', '.join(recipe_names())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE | key=value",
        help="a recipe's name or a YAML file (default: quickstart), then dotted overrides",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print configuration and plan, start nothing"
    )
    options = parser.parse_intermixed_args(arguments)
    first_is_recipe = bool(options.words) and "=" not in options.words[0]
    options.recipe = options.words[0] if first_is_recipe else None
    options.overrides = options.words[1:] if first_is_recipe else options.words
    return options


if __name__ == "__main__":
    sys.exit(main())
