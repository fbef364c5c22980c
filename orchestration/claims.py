"""Every claim about a finished or unfinished run, and how each is judged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from orchestration import claims_files as files
from orchestration import claims_ledger as ledger
from orchestration.evidence import DoesNotApply, Evidence

Verdict = Literal["ok", "broken", "does not apply"]

CLAIMS: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "the files can be read": files.files_can_be_read,
    "the ledger has no impossible event": ledger.every_event_is_possible,
    "issued = consumed + dropped + in flight": ledger.uses_add_up,
    "nothing is in flight at the end": ledger.nothing_is_left_over,
    "every drop has a reason": ledger.every_drop_has_a_reason,
    "steps are consecutive": ledger.steps_are_consecutive,
    "every step learned from a whole batch": ledger.batches_are_whole,
    "resumes put back what they undid": ledger.roll_backs_are_exact,
    "no use of a prompt is missing": ledger.no_use_is_missing,
    "no response was too old": files.lags_are_bounded,
    "metrics have each step once": files.metrics_follow_the_ledger,
    "checkpoints are sound": files.checkpoints_are_sound,
    "checkpoints belong to the ledger": files.checkpoints_belong_to_the_ledger,
    "the latest checkpoint is there": files.the_latest_checkpoint_is_there,
    "the summary agrees with the ledger": files.the_summary_agrees,
    "the student can be opened": files.the_student_can_be_opened,
}
"""What a person reads → the function that yields whatever speaks against it."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of one claim."""

    claim: str
    verdict: Verdict
    wrong: tuple[str, ...] = ()
    """What speaks against it: file, line or uid, and what is there."""
    why: str = ""
    """Why it does not apply."""


def judge(run: Evidence) -> Iterator[Judgement]:
    """Yield a judgement of every claim, in their order."""
    for claim, wrong in CLAIMS.items():
        try:
            found = tuple(wrong(run))
        except DoesNotApply as error:
            yield Judgement(claim=claim, verdict="does not apply", why=str(error))
        else:
            yield Judgement(claim=claim, verdict="broken" if found else "ok", wrong=found)
