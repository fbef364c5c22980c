"""The entry: `python -m orchestration.verify RUN`.

Says of a run folder, finished, stopped, crashed or in use, whether anything was lost: every claim
is proved again from the files, nothing that the run says of itself is believed.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import DpkdError
from orchestration.claims import Judgement, judge
from orchestration.evidence import Evidence
from orchestration.gathering import gather
from orchestration.say import say

BROKEN_EXIT_CODE = 1
USAGE = """\
examples:
  python -m orchestration.verify runs/quickstart
  python -m orchestration.verify runs/quickstart --json     for programs

Exit codes: 0 every claim holds, 1 one is broken, 2 there is no such run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a run folder; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        run = gather(options.run)
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    judgements = list(judge(run))
    if options.json:
        rows = [dataclasses.asdict(judgement) for judgement in judgements]
        say(json.dumps({"run": str(run.folder), "state": run.state, "claims": rows}, indent=2))
    else:
        for judgement in judgements:
            say(line_of(judgement))
        say(sentence_of(run, judgements))
    return BROKEN_EXIT_CODE if any(each.verdict == "broken" for each in judgements) else 0


def line_of(judgement: Judgement) -> str:
    """Render one claim: verdict, claim, and the first thing that is wrong."""
    head = f"{judgement.verdict:14}  {judgement.claim}"
    if judgement.why:
        return f"{head}: {judgement.why}"
    if not judgement.wrong:
        return head
    first, *others = judgement.wrong
    return f"{head}: {first}" + (f" (and {len(others)} more, see --json)" if others else "")


def sentence_of(run: Evidence, judgements: Sequence[Judgement]) -> str:
    """Sum up all claims."""
    counts = {v: sum(j.verdict == v for j in judgements) for v in ("ok", "broken")}
    step = max(run.standing, default=run.first_step - 1)
    subject = f"{run.folder} ({run.state}, step {step})"
    if counts["broken"]:
        return f"{subject}: {counts['broken']} of {len(judgements)} claims broken."
    rest = len(judgements) - counts["ok"]
    also = f", {rest} of {len(judgements)} say nothing about it" if rest else ""
    return f"{subject}: nothing is lost: {counts['ok']} claims hold{also}."


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.verify",
        description="Check that a run lost nothing: its ledger, checkpoints, metrics and student.",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, whatever its state")
    parser.add_argument("--json", action="store_true", help="print the judgements as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
