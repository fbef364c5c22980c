"""What became of every prompt: an append-only file of events, and the balance they add up to.

`events.jsonl` has one JSON object a line. The same fold, `Account.apply`, makes the live
balance and the one read back from the file, so the two cannot drift apart.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, get_args

from configs.errors import DataError
from configs.replay import DropReason
from configs.wire import Uid
from orchestration.uid_set import UidSet

Event = dict[str, Any]
"""One line of the file: ``event``, ``time`` (Unix seconds), and what belongs to the event."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Numbers of uids; ``summary.json`` carries them under ``ledger``."""

    issued: int
    consumed: int
    in_flight: int
    dropped: Mapping[str, int]
    """By reason; reasons that never occurred are absent."""

    def as_dict(self) -> dict[str, Any]:
        """Return the ``ledger`` section of summary.json."""
        return {**asdict(self), "dropped": dict(self.dropped)}

    def check(self) -> None:
        """Raise AssertionError unless every issued uid is accounted for exactly once."""
        accounted = self.consumed + sum(self.dropped.values()) + self.in_flight
        assert self.issued == accounted, f"{accounted} uids accounted for, of {self}"


class Account:
    """Folds events into a balance, and refuses events that no honest run can produce."""

    def __init__(self) -> None:
        self._issued = UidSet()
        # Kept for itself, not as a difference: the balance could not fail otherwise.
        self._in_flight: set[Uid] = set()
        self._consumed = 0
        self._dropped: Counter[str] = Counter()

    def apply(self, event: Event) -> None:
        """Book one event.

        Raises AssertionError, and books nothing, for a uid issued twice, or consumed,
        redrawn or dropped without being in flight (so consumed twice, too).
        """
        kind = event["event"]
        uids = [parse_uid(text) for text in event.get("uids", ())]
        self._admit(kind, uids)
        if kind == "issued":
            for uid in uids:
                self._issued.add(uid)
            self._in_flight.update(uids)
        elif kind == "consumed":
            self._in_flight.difference_update(uids)
            self._consumed += len(uids)
        elif kind == "dropped":
            assert event["reason"] in get_args(DropReason), event["reason"]
            self._in_flight.difference_update(uids)
            self._dropped[event["reason"]] += len(uids)

    def balance(self) -> Balance:
        """Return the numbers so far."""
        return Balance(
            issued=len(self._issued),
            consumed=self._consumed,
            in_flight=len(self._in_flight),
            dropped=dict(self._dropped),
        )

    def _admit(self, kind: str, uids: list[Uid]) -> None:
        assert len(set(uids)) == len(uids), f"{kind}: a uid is named twice in {uids}"
        for uid in uids:
            if kind == "issued":
                assert uid not in self._issued, f"uid {uid} was issued twice"
            else:
                assert uid in self._in_flight, f"uid {uid} was {kind}, but is not in flight"


class Ledger:
    """Writes the events of one run. Opening a file that has events continues it."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._account = Account()
        if path.exists():
            for event in read_events(path):
                self._account.apply(event)
            _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def run_started(self, **facts: Any) -> None:
        """Note a start; ``facts`` must be JSON values."""
        self._write("run_started", **facts)

    def run_finished(self, **facts: Any) -> None:
        """Note an end; ``facts`` must be JSON values."""
        self._write("run_finished", **facts)

    def issued(self, uids: Iterable[Uid]) -> None:
        """Note prompts taken from the source: they are in flight now."""
        self._write_uids("issued", uids)

    def consumed(self, step: int, uids: Iterable[Uid]) -> None:
        """Note that optimizer step ``step`` learned from these."""
        self._write_uids("consumed", uids, step=step)

    def dropped(self, reason: DropReason, uids: Iterable[Uid]) -> None:
        """Note that these were given up."""
        self._write_uids("dropped", uids, reason=reason)

    def redrawn(self, uids: Iterable[Uid]) -> None:
        """Note that their student responses, too old, are drawn again; they stay in flight."""
        self._write_uids("redrawn", uids)

    def balance(self) -> Balance:
        """Return the numbers so far."""
        return self._account.balance()

    def check(self) -> None:
        """Raise AssertionError unless every issued uid is accounted for exactly once."""
        self.balance().check()

    def close(self) -> None:
        """Flush to the disk and close the file; may be called twice."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _write_uids(self, kind: str, uids: Iterable[Uid], **facts: Any) -> None:
        names = [str(uid) for uid in uids]
        if names:
            self._write(kind, **facts, uids=names)

    def _write(self, kind: str, **facts: Any) -> None:
        event: Event = {"event": kind, "time": round(self._clock(), 3), **facts}
        line = json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n"
        self._account.apply(event)
        self._file.write(line)
        self._file.flush()


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a ledger.

    A last line without its newline is one that a dying process left behind: it is ignored.
    Raises DataError, with file and line, for any other line that is not an event.
    """
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                event = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}); {_MEND}") from None
            if not isinstance(event, dict) or "event" not in event:
                raise DataError(f"{path}, line {number}: not a ledger event; {_MEND}")
            yield event


def read_ledger(path: Path) -> Balance:
    """Recompute the balance from the file. Raises DataError and AssertionError as its parts do."""
    account = Account()
    for event in read_events(path):
        account.apply(event)
    return account.balance()


def parse_uid(text: str) -> Uid:
    """Read the spelling that ``str(uid)`` gives, ``epoch/ordinal/sample``."""
    epoch, ordinal, sample = text.split("/")
    return Uid(int(epoch), int(ordinal), int(sample))


_MEND = "the ledger was edited or damaged, start the run afresh with existing=replace"


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
