"""What a run folder says of its run, not yet believed: ``orchestration.claims`` asks it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.run import RunConfig
from orchestration.account import Account, Event
from orchestration.checkpoints import Checkpoint


class DoesNotApply(Exception):
    """Raised by a claim that says nothing about this run; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The files of one run. Line n of a file of lines is item n - 1 here."""

    folder: Path
    state: str
    """Of status.json; ``crashed`` where that says running and nobody runs it; ``unknown`` without
    it."""
    settings: RunConfig | None
    summary: Mapping[str, Any] | None
    home: Path
    """Where the checkpoints are."""
    checkpoints: Sequence[Checkpoint]
    """The sound ones, newest first."""
    damaged: Sequence[str]
    """What is wrong with the others."""
    metrics: Sequence[Mapping[str, Any]]
    events: Sequence[Event]
    account: Account
    """What the events come to."""
    refused: Sequence[str]
    """Events that no honest run could have written; the account knows nothing of them."""
    unreadable: Sequence[str]
    """What is wrong with files that are missing or cannot be read."""

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "events.jsonl"

    @property
    def succeeded(self) -> bool:
        """Whether the run says that it came to its end."""
        return self.state == "succeeded"

    @property
    def config(self) -> RunConfig:
        """The settings of the run's newest life. Raises DoesNotApply where they are unreadable."""
        if self.settings is None:
            raise DoesNotApply("config.yaml cannot be read")
        return self.settings

    @property
    def standing(self) -> dict[int, int]:
        """Step → number of the ledger's line that booked it, of every step that stands."""
        standing: dict[int, int] = {}
        for line, event in enumerate(self.events, start=1):
            if event["event"] == "consumed":
                standing[event["step"]] = line
            elif event["event"] == "rolled_back":
                standing = {step: at for step, at in standing.items() if step <= event["step"]}
        return standing

    @property
    def first_step(self) -> int:
        """The ledger's first step: 1, unless another run's checkpoint was gone on from."""
        kinds = [event["event"] for event in self.events]
        if "carried" not in kinds or "rolled_back" not in kinds:
            return 1
        return self.events[kinds.index("rolled_back")]["step"] + 1

    def since(self, *settings: str) -> int:
        """Return the first step that was surely made with today's values of ``settings``.

        A resume changes such settings only where ``checkpoint.accept`` names them.
        """
        accepted = self.config.checkpoint.accept
        if not any(f"{key}.".startswith(f"{name}.") for key in settings for name in accepted):
            return 0
        backs = [event["step"] for event in self.events if event["event"] == "rolled_back"]
        return backs[-1] + 1 if backs else 0


def fold(events: Sequence[Event]) -> tuple[Account, list[str]]:
    """Return the account of ``events``, and what no honest run could have written."""
    account, refused = Account(), []
    for line, event in enumerate(events, start=1):
        try:
            account.apply(event)
        except AssertionError as error:
            refused.append(f"events.jsonl, line {line}: {error}")
        except (KeyError, TypeError, ValueError) as error:
            refused.append(f"events.jsonl, line {line}: a malformed {event['event']} ({error!r})")
    return account, refused
