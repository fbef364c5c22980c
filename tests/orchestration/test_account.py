"""The account against a plain model, whatever order things come in (Hypothesis)."""

import json
from collections import Counter
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from configs.replay import DropReason
from configs.wire import Uid
from orchestration.account import Account, Balance


def event(kind: str, uids: list[Uid], **facts: object) -> dict:
    """An event as it comes back from the file."""
    return json.loads(json.dumps({"event": kind, "uids": [str(uid) for uid in uids], **facts}))


class AccountMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.account = Account()
        self.state: dict[Uid, str] = {}
        """Uid → ``in_flight``, ``consumed`` or a reason."""
        self.made: dict[Uid, int] = {}
        """Uid → the step that consumed it."""
        self.step = 0

    def those(self, *states: str) -> list[Uid]:
        return sorted(uid for uid, state in self.state.items() if state in states)

    def some(self, data: st.DataObject, *states: str) -> list[Uid]:
        there = self.those(*states)
        return data.draw(st.lists(st.sampled_from(there), unique=True, max_size=4)) if there else []

    @rule(uids=st.lists(st.builds(Uid, *[st.integers(0, n) for n in (1, 9, 1)]), unique=True))
    def issue(self, uids: list[Uid]) -> None:
        new = [uid for uid in uids if uid not in self.state]
        if new:
            self.account.apply(event("issued", new))
        self.state |= dict.fromkeys(new, "in_flight")

    @rule(data=st.data())
    def consume(self, data: st.DataObject) -> None:
        uids = self.some(data, "in_flight")
        self.step += 1
        self.account.apply(event("consumed", uids, step=self.step))
        self.state |= dict.fromkeys(uids, "consumed")
        self.made |= dict.fromkeys(uids, self.step)

    @rule(data=st.data(), reason=st.sampled_from(get_args(DropReason)))
    def drop(self, data: st.DataObject, reason: str) -> None:
        uids = self.some(data, "in_flight")
        self.account.apply(event("dropped", uids, reason=reason))
        self.state |= dict.fromkeys(uids, reason)

    @rule(data=st.data(), kind=st.sampled_from(["redrawn", "reissued"]))
    def begin_again_with_what_is_in_flight(self, data: st.DataObject, kind: str) -> None:
        self.account.apply(event(kind, self.some(data, "in_flight")))

    @rule(back=st.integers(0, 3))
    def roll_back(self, back: int) -> None:
        self.step = max(0, self.step - back)
        undone = [uid for uid in self.those("consumed") if self.made[uid] > self.step]
        self.account.apply(event("rolled_back", undone, step=self.step))
        self.state |= dict.fromkeys(undone, "in_flight")

    @precondition(lambda self: self.state)
    @rule(data=st.data())
    def do_what_no_honest_run_does(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.state)))
        kinds = ["issued"] + ["rolled_back"] * (self.state[uid] != "consumed")
        if self.state[uid] != "in_flight":
            kinds += ["consumed", "dropped", "redrawn", "reissued"]
        kind = data.draw(st.sampled_from(kinds))
        allowed = {"issued": "new", "rolled_back": "consumed"}.get(kind, "in_flight")
        others = self.some(data, allowed)
        with pytest.raises(AssertionError, match=str(uid)):
            self.account.apply(event(kind, [*others, uid], step=1, reason="stale"))

    @rule()
    def carry_into_another_ledger(self) -> None:
        carried = json.loads(json.dumps(self.account.snapshot()))
        self.account = Account()
        self.account.apply({"event": "carried", "account": carried})
        assert self.account.snapshot() == carried

    @invariant()
    def agrees(self) -> None:
        counts = Counter(self.state.values())
        balance = self.account.balance()
        balance.check()
        assert balance.in_flight == counts.pop("in_flight", 0)
        assert balance.consumed == counts.pop("consumed", 0)
        assert {why: n for why, n in balance.dropped.items() if n} == dict(counts)
        assert balance.issued == len(self.state)
        assert self.account.in_flight == self.those("in_flight")
        assert sorted(self.account.issued) == sorted(self.state)
        assert self.account.last_issued == max(self.state, default=None)


TestAccount = AccountMachine.TestCase
TestAccount.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, derandomize=True
)


def test_a_snapshot_is_small_and_plain() -> None:
    account = Account()
    account.apply(event("issued", [Uid(0, ordinal, 0) for ordinal in range(1000)]))
    account.apply(event("consumed", [Uid(0, ordinal, 0) for ordinal in range(998)], step=1))
    account.apply(event("dropped", [Uid(0, 999, 0)], reason="poison"))
    assert account.snapshot() == {
        "consumed": [[0, 0, 0, 998]],
        "dropped": {"poison": [[0, 0, 999, 1000]]},
        "in_flight": ["0/998/0"],
    }


def test_what_was_rolled_back_is_consumed_again() -> None:
    account = Account()
    uids = [Uid(0, 0, 0), Uid(0, 1, 0)]
    account.apply(event("issued", uids))
    account.apply(event("consumed", uids, step=1))
    account.apply(event("rolled_back", uids, step=0))
    account.apply(event("reissued", uids))
    account.apply(event("consumed", uids, step=1))
    assert account.balance() == Balance(issued=2, consumed=2, in_flight=0, dropped={})


def test_an_account_is_carried_only_into_an_empty_ledger() -> None:
    account = Account()
    account.apply(event("issued", [Uid(0, 0, 0)]))
    with pytest.raises(AssertionError, match="carried into a ledger that has events"):
        account.apply({"event": "carried", "account": account.snapshot()})


def test_a_carried_account_that_names_a_uid_twice_is_refused() -> None:
    twice = {"consumed": [[0, 0, 0, 2]], "dropped": {}, "in_flight": ["0/1/0"]}
    with pytest.raises(AssertionError, match="0/1/0 is carried twice"):
        Account().apply({"event": "carried", "account": twice})
