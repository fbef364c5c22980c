"""The entry: `python -m orchestration.doctor [RECIPE] [key=value ...]`.

Says, before a long run, whether this machine can do it. Starts no Ray and no engine. Imports
nothing but the standard library before it looks: packages may be what is missing.
"""

import argparse
import dataclasses
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence

from configs.errors import DependencyError, DpkdError
from orchestration.checkups import Finding, worst
from orchestration.checkups_software import LOCK, check_packages, installed_version
from orchestration.command import parse_recipe
from orchestration.say import say

OURS = ("configs", "actors", "learner", "orchestration")
COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}
PROBLEM_EXIT_CODE = DependencyError.exit_code
USAGE = """\
examples:
  python -m orchestration.doctor                       the quickstart, on this machine
  python -m orchestration.doctor e2e data.train=my.jsonl
  python -m orchestration.doctor my.yaml --json        for programs

Exit codes: 0 no problem (there may be warnings), 2 a wrong recipe or override, 3 a problem."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this machine for a recipe; returns the process's exit code."""
    options, recipe, overrides = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        found = list(_shown(_examined(recipe, overrides), quiet=options.json))
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except ModuleNotFoundError as error:
        packages = check_packages(LOCK, installed_version)
        if packages.verdict == "ok" or (error.name or "").split(".")[0] in OURS:
            raise
        what = f"error: {packages.detail} (for {sys.executable}); {packages.fix}"
        print(what, file=sys.stderr)  # noqa: T201
        return PROBLEM_EXIT_CODE
    _conclude(found, as_json=options.json)
    return PROBLEM_EXIT_CODE if worst(found) == "problem" else 0


def _examined(recipe: str | None, overrides: Sequence[str]) -> Iterator[Finding]:
    """Yield what is found, as it is found."""
    from configs.load import load
    from orchestration.ray_auth import settle_authentication

    config = load(recipe, overrides)
    settle_authentication(config.cluster)  # as a run would, before anything imports Ray
    from orchestration.checkups_all import examine

    yield from examine(config, os.environ)


def _shown(findings: Iterator[Finding], *, quiet: bool) -> Iterator[Finding]:
    """Print every finding on its way, unless ``quiet``."""
    # A line is cut into several on a terminal only: what reads a pipe wants one a check.
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 10_000
    for finding in findings:
        if not quiet:
            say(line_of(finding, width=width, colour=terminal))
        yield finding


def line_of(finding: Finding, *, width: int, colour: bool = False) -> str:
    """Render a finding: verdict, name, what was seen, and what to do."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sentence = f"{finding.detail}; {finding.fix}" if finding.fix else finding.detail
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=7)
    grid.add_column(min_width=18, no_wrap=True)
    grid.add_column(overflow="fold")
    verdict = Text(finding.verdict, style=COLOURS[finding.verdict])
    grid.add_row(verdict, Text(finding.name), Text(sentence))
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=None if colour else True
    )
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _conclude(found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in found]
        say(json.dumps({"verdict": worst(found), "findings": rows}, indent=2))
        return
    counts = {each: sum(f.verdict == each for f in found) for each in ("problem", "warning")}
    said = ", ".join(f"{n or 'no'} {each}{'s' * (n != 1)}" for each, n in counts.items())
    say(f"{len(found)} checks: {said}")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, str | None, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.doctor",
        description="Check whether this machine can run a recipe; starts nothing.",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parse_recipe(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
