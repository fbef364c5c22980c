"""What the command lines of run and doctor share: a recipe, then overrides."""

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
