"""What became of every prompt: an append-only file of events, and the balance they add up to.

`events.jsonl` has one JSON object a line. The same fold, `Account.apply`, makes the live
balance and the one read back from the file, so the two cannot drift apart.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from configs.errors import DataError
from configs.replay import DropReason
from configs.wire import Uid
from orchestration.account import Account, Balance, Event, parse_uid


class Ledger:
    """Writes the events of one run. Opening a file that has events continues it."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._path = path
        self._account = Account()
        self._digest = hashlib.blake2b(digest_size=16)
        self._bytes = 0
        if path.exists():
            for event in read_events(path):
                self._account.apply(event)
            _cut_torn_line(path)
            self._seal(path.read_bytes())
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

    def reissued(self, uids: Iterable[Uid]) -> None:
        """Note that these, in flight, are issued again: whoever had them is dead."""
        self._write_uids("reissued", uids)

    def roll_back(self, step: int) -> None:
        """Undo every step after ``step``: what they consumed is in flight again."""
        self._file.flush()
        uids = consumed_after(self._path, step)
        self._write("rolled_back", step=step, uids=[str(uid) for uid in uids])

    def carried(self, account: Mapping[str, Any], **facts: Any) -> None:
        """Begin with the ``account`` of another run's checkpoint; only as the first event."""
        self._write("carried", account=account, **facts)

    def checkpointed(self, step: int) -> None:
        """Note that a checkpoint of ``step`` is in place."""
        self._write("checkpointed", step=step)

    def restarted(self, role: str, reason: str, *, seconds: float) -> None:
        """Note that a part was started again, ``seconds`` after it was found dead."""
        self._write("restarted", role=role, reason=reason, seconds=round(seconds, 3))

    def joined(self, role: str, *, step: int) -> None:
        """Note that a sampler joined behind ``step``."""
        self._write("joined", role=role, step=step)

    def left(self, role: str, *, step: int) -> None:
        """Note that a sampler left behind ``step``: fewer were wanted, or it did not come back."""
        self._write("left", role=role, step=step)

    @property
    def in_flight(self) -> list[Uid]:
        """What is issued and neither consumed nor dropped, in order."""
        return self._account.in_flight

    @property
    def last_issued(self) -> Uid | None:
        """The highest uid so far; None: nothing was issued."""
        return self._account.last_issued

    def mark(self) -> dict[str, Any]:
        """Make everything so far durable; returns the account, and what proves this ledger."""
        self._file.flush()
        os.fsync(self._file.fileno())
        seal = {"bytes": self._bytes, "blake2b": self._digest.hexdigest()}
        return {"account": self._account.snapshot(), "seal": seal}

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
        self.check()
        self._file.write(line)
        self._file.flush()
        self._seal(line.encode())

    def _seal(self, content: bytes) -> None:
        self._digest.update(content)
        self._bytes += len(content)


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


def is_sealed(path: Path, seal: Mapping[str, Any]) -> bool:
    """Whether the ledger begins with the bytes that ``Ledger.mark`` sealed."""
    try:
        with path.open("rb") as file:
            content = file.read(seal["bytes"])
    except FileNotFoundError:
        return False
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return len(content) == seal["bytes"] and digest == seal["blake2b"]


def consumed_after(path: Path, step: int) -> list[Uid]:
    """Return the uids that stand as consumed by steps above ``step``, in order."""
    uids: set[Uid] = set()
    for event in read_events(path):
        named = {parse_uid(text) for text in event.get("uids", ())}
        if event["event"] == "consumed" and event["step"] > step:
            uids |= named
        elif event["event"] == "rolled_back":
            uids -= named
    return sorted(uids)


_MEND = "the ledger was edited or damaged, start the run afresh with existing=replace"


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
