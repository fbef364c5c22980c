"""What must be true of a run's ledger: every use of a prompt, learned from once or given up."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from configs.replay import DropReason
from configs.wire import Uid
from orchestration.account import Event
from orchestration.evidence import DoesNotApply, Evidence, fold
from orchestration.uid_set import UidSet


def every_event_is_possible(run: Evidence) -> Iterator[str]:
    """Expect no uid issued or consumed twice, or finished without being in flight."""
    yield from run.refused


def uses_add_up(run: Evidence) -> Iterator[str]:
    """Expect the fold's numbers to be those that are added up without it."""
    issued, consumed, dropped = (_count(run.events, kind) for kind in _COUNTED)
    in_flight = len(run.account.in_flight)
    if issued != consumed + dropped + in_flight:
        yield (
            f"events.jsonl: {issued} issued, but {consumed} consumed + {dropped} dropped + "
            f"{in_flight} in flight"
        )


def nothing_is_left_over(run: Evidence) -> Iterator[str]:
    """Expect a run that came to its end to have finished whatever it began."""
    if not run.succeeded:
        raise DoesNotApply(f"the run is not at its end, but {run.state}")
    left = run.account.in_flight
    if left:
        yield f"events.jsonl: in flight at the end: {_some(left)}"


def every_drop_has_a_reason(run: Evidence) -> Iterator[str]:
    """Expect reasons of the closed list."""
    for line, event in enumerate(run.events, start=1):
        if event["event"] == "dropped" and event["reason"] not in get_args(DropReason):
            yield f"events.jsonl, line {line}: dropped as {event['reason']!r}, which is no reason"


def steps_are_consecutive(run: Evidence) -> Iterator[str]:
    """Expect them from 1 on, and again from behind the step to which a resume went back."""
    due, carried = 1, False
    for line, event in enumerate(run.events, start=1):
        where, kind = f"events.jsonl, line {line}", event["event"]
        carried |= kind == "carried"
        if kind == "consumed":
            if event["step"] != due:
                yield f"{where}: step {event['step']}, where {due} was due"
            due = event["step"] + 1
        elif kind == "rolled_back":
            if event["step"] >= due and not carried:
                yield f"{where}: rolled back to step {event['step']}, which was not made"
            due, carried = event["step"] + 1, False
    if run.succeeded and due <= run.config.learner.steps:
        yield f"events.jsonl: ends at step {due - 1} of {run.config.learner.steps}"


def batches_are_whole(run: Evidence) -> Iterator[str]:
    """Expect ``learner.batch_size`` uses of prompts in every step that stands."""
    size, since = run.config.learner.batch_size, run.since("learner.batch_size")
    for step, line in run.standing.items():
        found = len(run.events[line - 1]["uids"])
        if step >= since and found != size:
            yield f"events.jsonl, line {line}: step {step} learned from {found} uses, not {size}"


def roll_backs_are_exact(run: Evidence) -> Iterator[str]:
    """Expect a resume to put in flight what the steps that it undoes had consumed."""
    if not any(event["event"] == "rolled_back" for event in run.events):
        raise DoesNotApply("no step was ever undone")
    made: dict[int, Sequence[str]] = {}
    for line, event in enumerate(run.events, start=1):
        if event["event"] == "consumed":
            made[event["step"]] = event["uids"]
        elif event["event"] == "rolled_back":
            undone = {uid for step in made if step > event["step"] for uid in made[step]}
            made = {step: uids for step, uids in made.items() if step <= event["step"]}
            for uid in sorted(undone ^ set(event["uids"])):
                yield f"events.jsonl, line {line}: uid {uid} is in what was undone or in " + (
                    "what was put back, but not in both"
                )


def no_use_is_missing(run: Evidence) -> Iterator[str]:
    """Expect what was issued to be the beginning of the stream of prompts, without a gap."""
    if run.since("data", "negatives.samples"):
        raise DoesNotApply("checkpoint.accept let a resume change data or negatives.samples")
    seen, samples = run.account.issued, run.config.samples_per_prompt
    if run.account.last_issued is None:
        raise DoesNotApply("nothing was issued")
    rows = _rows_per_epoch(run)
    outside = [uid for uid in seen if not (0 <= uid.ordinal < rows and 0 <= uid.sample < samples)]
    if outside:
        yield f"events.jsonl: not of {rows} rows with {samples} samples each: {_some(outside)}"
    missing = list(_missing(seen, run.account.last_issued, rows, samples))
    if missing and not _were_passed_over(run, missing, samples):
        yield f"events.jsonl: never issued, though later ones were: {_some(missing)}"


_COUNTED = ("issued", "consumed", "dropped")


def _count(events: Sequence[Event], kind: str) -> int:
    """Add up the uids of one kind of event, and what another run's account carried of it."""
    total = 0
    for event in events:
        if event["event"] == kind:
            total += len(event["uids"])
        elif event["event"] == "rolled_back" and kind == "consumed":
            total -= len(event["uids"])
        elif event["event"] == "carried":
            balance = fold([event])[0].balance()
            dropped = sum(balance.dropped.values())
            total += dropped if kind == "dropped" else getattr(balance, kind)
    return total


def _rows_per_epoch(run: Evidence) -> int:
    """Return what a checkpoint says; without one, the ordinals of the ledger are all there is."""
    for checkpoint in run.checkpoints:
        return checkpoint.facts["data"][1]
    return 1 + max(uid.ordinal for uid in run.account.issued)


def _missing(seen: UidSet, last: Uid, rows: int, samples: int) -> Iterator[Uid]:
    """Yield what comes before ``last`` in the stream and was not seen."""
    for epoch in range(last.epoch + 1):
        for sample in range(samples):
            whole = epoch < last.epoch
            end = rows if whole else last.ordinal + (sample <= last.sample)
            uids = (Uid(epoch, ordinal, sample) for ordinal in range(end))
            yield from (uid for uid in uids if uid not in seen)


def _were_passed_over(run: Evidence, missing: Sequence[Uid], samples: int) -> bool:
    """Whether all that is missing are rows, whole, that were found too long on their turn.

    A summary counts them, but not those of the life before a resume.
    """
    uses = Counter((uid.epoch, uid.ordinal) for uid in missing)
    if run.config.data.on_bad_row != "skip" or set(uses.values()) != {samples}:
        return False
    if run.summary is None or run.summary.get("resumed_at") is not None:
        return True
    by_epoch = Counter(epoch for epoch, _ in uses)
    return max(by_epoch.values()) <= run.summary["skipped_rows"].get("too_long", 0)


def _some(uids: Sequence[Uid]) -> str:
    shown = ", ".join(str(uid) for uid in uids[:3])
    return f"{shown} and {len(uids) - 3} more" if len(uids) > 3 else shown
