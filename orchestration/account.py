"""What every uid came to, as a fold over events: the balance of a ledger.

issued ──► in flight ──consumed──► consumed     by a step
│    ▲ ◄──rolled_back────┘         a resume undoes the steps after its checkpoint
│    └── redrawn, reissued         still in flight: drawn, or issued, again
└──dropped──► dropped              for ever, with a reason
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

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

    @property
    def unaccounted(self) -> int:
        """What the law of conservation leaves over: 0, or something was lost or counted twice."""
        return self.issued - self.consumed - sum(self.dropped.values()) - self.in_flight

    def check(self) -> None:
        """Raise AssertionError unless every issued uid is accounted for exactly once."""
        assert self.unaccounted == 0, f"{self.unaccounted} uids not accounted for, of {self}"


class Account:
    """Folds events into a balance, and refuses events that no honest run can produce."""

    def __init__(self) -> None:
        # All four for themselves, not one as a difference: the balance could not fail otherwise.
        self._issued = UidSet()
        self._in_flight: set[Uid] = set()
        self._consumed = UidSet()
        self._dropped: dict[str, UidSet] = {}
        self.last_issued: Uid | None = None
        """The highest uid so far: the prompt source goes on behind it."""

    def apply(self, event: Event) -> None:
        """Book one event.

        Raises AssertionError, and books nothing, for a uid issued twice, or consumed,
        redrawn, reissued or dropped without being in flight (so consumed twice, too), or rolled
        back without being consumed.
        """
        kind = event["event"]
        if kind == "carried":
            self._carry(event["account"])
            return
        uids = [parse_uid(text) for text in event.get("uids", ())]
        self._admit(kind, uids)
        if kind == "issued":
            self._issue(uids)
        elif kind == "rolled_back":
            for uid in uids:
                self._consumed.discard(uid)
            self._in_flight.update(uids)
        elif kind in ("consumed", "dropped"):
            self._finish(uids, self._consumed if kind == "consumed" else self._drops(event))

    @property
    def issued(self) -> UidSet:
        """Every uid so far."""
        return self._issued

    @property
    def in_flight(self) -> list[Uid]:
        """What is issued and neither consumed nor dropped, in order."""
        return sorted(self._in_flight)

    def balance(self) -> Balance:
        """Return the numbers so far."""
        return Balance(
            issued=len(self._issued),
            consumed=len(self._consumed),
            in_flight=len(self._in_flight),
            dropped={reason: len(uids) for reason, uids in self._dropped.items()},
        )

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain JSON: frontiers as runs, and what lies above them."""
        return {
            "consumed": self._consumed.as_runs(),
            "dropped": {reason: uids.as_runs() for reason, uids in self._dropped.items()},
            "in_flight": [str(uid) for uid in self.in_flight],
        }

    def _carry(self, account: Mapping[str, Any]) -> None:
        """Begin with what another run's checkpoint knew."""
        assert not len(self._issued), "carried into a ledger that has events"
        self._consumed = UidSet.of_runs(account["consumed"])
        self._dropped = {why: UidSet.of_runs(runs) for why, runs in account["dropped"].items()}
        self._in_flight = {parse_uid(text) for text in account["in_flight"]}
        for uids in (self._consumed, *self._dropped.values(), self._in_flight):
            for uid in uids:
                assert self._issued.add(uid), f"uid {uid} is carried twice"
                self.last_issued = max(self.last_issued or uid, uid)

    def _issue(self, uids: list[Uid]) -> None:
        for uid in uids:
            self._issued.add(uid)
        self._in_flight.update(uids)
        self.last_issued = max([*uids, *([self.last_issued] if self.last_issued else [])])

    def _finish(self, uids: list[Uid], state: UidSet) -> None:
        self._in_flight.difference_update(uids)
        for uid in uids:
            state.add(uid)

    def _drops(self, event: Event) -> UidSet:
        assert event["reason"] in get_args(DropReason), event["reason"]
        return self._dropped.setdefault(event["reason"], UidSet())

    def _admit(self, kind: str, uids: list[Uid]) -> None:
        assert len(set(uids)) == len(uids), f"{kind}: a uid is named twice in {uids}"
        for uid in uids:
            if kind == "issued":
                assert uid not in self._issued, f"uid {uid} was issued twice"
            elif kind == "rolled_back":
                assert uid in self._consumed, f"uid {uid} was rolled back, but not consumed"
            else:
                assert uid in self._in_flight, f"uid {uid} was {kind}, but is not in flight"


def parse_uid(text: str) -> Uid:
    """Read the spelling that ``str(uid)`` gives, ``epoch/ordinal/sample``."""
    epoch, ordinal, sample = text.split("/")
    return Uid(int(epoch), int(ordinal), int(sample))
