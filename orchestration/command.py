"""What command lines share: a recipe with overrides, and numbers."""

import argparse
from collections.abc import Sequence


def parse_recipe(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, str | None, list[str]]:
    """Return the parsed options, the recipe (None: the default one) and the overrides."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE | key=value",
        help="a recipe's name or a YAML file (default: quickstart), then dotted overrides",
    )
    options = parser.parse_intermixed_args(arguments)
    words: list[str] = options.words
    if words and "=" not in words[0]:
        return options, words[0], words[1:]
    return options, None, words


def natural(text: str) -> int:
    """Read a number from 0 on; argparse answers anything else."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError("a number from 0 on is needed")
    return value
