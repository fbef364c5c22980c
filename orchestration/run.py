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
from orchestration.command import parse_recipe
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
    options, recipe, overrides = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = load(recipe, overrides)
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
    from orchestration.outline import describe

    say(dump(config))
    say(describe(config))
    say("  not looked at: data, models, machine (python -m orchestration.doctor does)")
    return 0


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, str | None, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.run",
        description="Distil a teacher into a student by preference distillation (DPKD).",
        epilog=USAGE + f"\nrecipes: {', '.join(recipe_names())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print configuration and plan, start nothing"
    )
    return parse_recipe(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
