"""What must be true of a run's other files: they can be read, and say what the ledger says."""

from collections.abc import Iterator

from safetensors import SafetensorError, safe_open

from orchestration.checkpoints import LATEST, STATE, Checkpoint
from orchestration.evidence import DoesNotApply, Evidence, fold
from orchestration.ledger import is_sealed


def files_can_be_read(run: Evidence) -> Iterator[str]:
    """Expect nothing to be missing or garbled that should be there."""
    yield from run.unreadable


def lags_are_bounded(run: Evidence) -> Iterator[str]:
    """Expect no step that learned from a response older than the settings allow."""
    bound = run.config.lag_bound
    since = run.since("replay.max_policy_lag", "negatives", "objective", "learner.steps")
    for line, step in enumerate(run.metrics, start=1):
        if step["step"] >= since and step.get("lag", 0) > bound:
            yield f"metrics.jsonl, line {line}: lag {step['lag']} above {bound}"


def metrics_follow_the_ledger(run: Evidence) -> Iterator[str]:
    """Expect a line for every step that stands, in order; a crash may cost the newest its own."""
    if run.events and run.events[-1]["event"] == "rolled_back":
        raise DoesNotApply("the run stopped while it went back to a checkpoint")
    due = run.first_step
    for line, step in enumerate(run.metrics, start=1):
        if step["step"] != due:
            yield f"metrics.jsonl, line {line}: step {step['step']}, where {due} was due"
        due = step["step"] + 1
    booked = max(run.standing, default=run.first_step - 1)
    if not booked - (not run.succeeded) <= due - 1 <= booked:
        yield f"metrics.jsonl: ends at step {due - 1}, the ledger at {booked}"


def checkpoints_are_sound(run: Evidence) -> Iterator[str]:
    """Expect every file of every checkpoint to be what its manifest says."""
    if not run.checkpoints and not run.damaged:
        raise DoesNotApply(f"there is none in {run.home}")
    yield from run.damaged


def checkpoints_belong_to_the_ledger(run: Evidence) -> Iterator[str]:
    """Expect every sound checkpoint to seal a beginning of the ledger, and to know what it says."""
    if not run.checkpoints:
        raise DoesNotApply(f"there is no sound one in {run.home}")
    for checkpoint in run.checkpoints:
        where = f"{checkpoint.path.name}/{STATE}"
        seal = checkpoint.state["seal"]
        if not is_sealed(run.ledger, seal):
            yield f"{where}: it seals {seal['bytes']} bytes with which events.jsonl does not begin"
        else:
            yield from (f"{where}: {what}" for what in _disagreements(run, checkpoint))


def the_latest_checkpoint_is_there(run: Evidence) -> Iterator[str]:
    """Expect LATEST to name a checkpoint; it may lack where the only one was cut short."""
    latest = run.home / LATEST
    if latest.exists():
        named = latest.read_text(encoding="utf-8").strip()
        if not named or not (run.home / named).is_dir():
            yield f"{latest}: names {named!r}, which is not there"
    elif len(run.checkpoints) > 1:
        yield f"{latest}: missing"
    elif not run.checkpoints:
        raise DoesNotApply(f"there is no checkpoint in {run.home}")


def the_summary_agrees(run: Evidence) -> Iterator[str]:
    """Expect the balance in summary.json to be what the ledger's events come to."""
    booked = max(run.standing, default=0)
    if run.summary is None:
        raise DoesNotApply("there is no summary.json")
    if not run.succeeded and run.summary["steps"] != booked:
        raise DoesNotApply("it is of the life before a resume")
    balance = run.account.balance().as_dict()
    for key, value in balance.items():
        if run.summary["ledger"].get(key) != value:
            yield (
                f"summary.json: ledger.{key} is {run.summary['ledger'].get(key)}, and in "
                f"events.jsonl {value}"
            )
    if run.summary["steps"] != booked:
        yield f"summary.json: steps is {run.summary['steps']}, and in events.jsonl {booked}"


def the_student_can_be_opened(run: Evidence) -> Iterator[str]:
    """Expect a run that came to its end to have left a whole model."""
    if not run.succeeded:
        raise DoesNotApply(f"the run is not at its end, but {run.state}")
    files = sorted((run.folder / "student").glob("*.safetensors"))
    if not files:
        yield "student/model.safetensors is missing"
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                if not tensors.keys():
                    yield f"student/{file.name}: holds no tensor"
        except (OSError, SafetensorError) as error:
            yield f"student/{file.name}: cannot be opened ({error})"


def _disagreements(run: Evidence, checkpoint: Checkpoint) -> Iterator[str]:
    with run.ledger.open("rb") as file:
        sealed = file.read(checkpoint.state["seal"]["bytes"]).count(b"\n")
    before, after = run.events[:sealed], run.events[sealed:]
    if fold(before)[0].snapshot() != checkpoint.state["account"]:
        yield f"its account is not that of the ledger's first {sealed} events"
    booked = [event["step"] for event in before if event["event"] in ("consumed", "rolled_back")]
    steps = {checkpoint.step, checkpoint.state["step"], int(checkpoint.path.name.split("-")[1])}
    if steps != {booked[-1] if booked else 0}:
        yield f"it is of step {checkpoint.step}, and its ledger ends at step {booked[-1:]}"
    backs = [event["step"] for event in after if event["event"] == "rolled_back"]
    if any(step < checkpoint.step for step in backs):
        yield f"a resume from step {min(backs)} has undone it"
