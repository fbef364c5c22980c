import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.replay import DropReason
from configs.wire import Uid
from orchestration.account import Account, Balance, parse_uid
from orchestration.ledger import Ledger, consumed_after, is_sealed, read_events, read_ledger


def uids(*ordinals: int) -> list[Uid]:
    return [Uid(0, ordinal, 0) for ordinal in ordinals]


def ledger(path: Path) -> Ledger:
    return Ledger(path, clock=lambda: 1.5)


def test_events_are_lines_of_json(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.run_started(seed=3)
        book.issued(uids(0, 1, 2))
        book.redrawn(uids(2))
        book.consumed(1, uids(0, 2))
        book.dropped("nonfinite", uids(1))
        book.issued([])
        book.run_finished(state="succeeded")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"event": "run_started", "time": 1.5, "seed": 3},
        {"event": "issued", "time": 1.5, "uids": ["0/0/0", "0/1/0", "0/2/0"]},
        {"event": "redrawn", "time": 1.5, "uids": ["0/2/0"]},
        {"event": "consumed", "time": 1.5, "step": 1, "uids": ["0/0/0", "0/2/0"]},
        {"event": "dropped", "time": 1.5, "reason": "nonfinite", "uids": ["0/1/0"]},
        {"event": "run_finished", "time": 1.5, "state": "succeeded"},
    ]


def test_the_balance_counts_every_state(tmp_path) -> None:
    book = ledger(tmp_path / "events.jsonl")
    book.issued(uids(0, 1, 2, 3, 4))
    book.consumed(1, uids(3, 0))
    book.dropped("poison", uids(1))
    expected = {"issued": 5, "consumed": 2, "in_flight": 2, "dropped": {"poison": 1}}
    assert book.balance().as_dict() == expected
    book.check()


def test_an_unbalanced_balance_fails_its_check() -> None:
    Balance(issued=3, consumed=1, in_flight=1, dropped={"stale": 1}).check()
    with pytest.raises(AssertionError, match="1 uids not accounted for"):
        Balance(issued=3, consumed=1, in_flight=1, dropped={}).check()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (lambda book: book.issued(uids(0)), "issued twice"),
        (lambda book: book.issued(uids(1)), "issued twice"),
        (lambda book: book.consumed(2, uids(0)), "0/0/0 was consumed, but is not in flight"),
        (lambda book: book.consumed(2, uids(7)), "0/7/0 was consumed, but is not in flight"),
        (lambda book: book.dropped("stale", uids(0)), "0/0/0 was dropped, but is not in flight"),
        (lambda book: book.redrawn(uids(0)), "0/0/0 was redrawn, but is not in flight"),
        (lambda book: book.consumed(2, uids(1, 1)), "named twice"),
        (lambda book: book.dropped("boredom", uids(1)), "boredom"),
    ],
)
def test_what_no_honest_run_does_is_refused_and_not_written(tmp_path, record, message) -> None:
    path = tmp_path / "events.jsonl"
    book = ledger(path)
    book.issued(uids(0, 1))
    book.consumed(1, uids(0))
    before = (path.read_text(), book.balance())
    with pytest.raises(AssertionError, match=message):
        record(book)
    assert (path.read_text(), book.balance()) == before


def test_a_torn_last_line_is_ignored_and_cut_when_the_ledger_goes_on(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.issued(uids(0, 1))
    with path.open("a") as file:
        file.write('{"event":"consumed","time":2.0,"step":1,"uids":["0/0')
    assert read_ledger(path).consumed == 0
    with ledger(path) as book:
        book.consumed(1, uids(1))
    assert read_ledger(path) == Balance(issued=2, consumed=1, in_flight=1, dropped={})


@pytest.mark.parametrize("bad", ["{", "[]", '"issued"', "{}"])
def test_a_damaged_line_is_an_error_with_file_and_line(tmp_path, bad) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event":"run_started","time":1}\n' + bad + "\n")
    with pytest.raises(DataError, match=r"events\.jsonl, line 2"):
        list(read_events(path))


actions = st.lists(
    st.tuples(
        st.sampled_from(["issued", "consumed", "dropped", "redrawn"]),
        st.sets(st.integers(0, 12), max_size=4),
        st.sampled_from(get_args(DropReason)),
    ),
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(actions=actions, cut=st.integers(0, 200))
def test_live_and_reread_balances_are_those_of_a_plain_model(tmp_path, actions, cut) -> None:
    path = tmp_path / "events.jsonl"
    path.unlink(missing_ok=True)
    state: dict[int, str] = {}
    with ledger(path) as book:
        for step, (kind, wanted, reason) in enumerate(actions):
            needed = None if kind == "issued" else "in_flight"
            chosen = sorted(one for one in wanted if state.get(one) == needed)
            if kind == "issued":
                book.issued(uids(*chosen))
                state |= dict.fromkeys(chosen, "in_flight")
            elif kind == "consumed":
                book.consumed(step, uids(*chosen))
                state |= dict.fromkeys(chosen, "consumed")
            elif kind == "dropped":
                book.dropped(reason, uids(*chosen))
                state |= dict.fromkeys(chosen, reason)
            else:
                book.redrawn(uids(*chosen))
            book.check()
        counts = Counter(state.values())
        expected = Balance(
            issued=len(state),
            consumed=counts.pop("consumed", 0),
            in_flight=counts.pop("in_flight", 0),
            dropped=dict(counts),
        )
        assert book.balance() == expected
    assert read_ledger(path) == expected
    path.write_bytes(path.read_bytes()[:cut])  # a crash may end the file anywhere
    read_ledger(path).check()


def test_uids_are_read_as_they_are_written() -> None:
    assert parse_uid(str(Uid(3, 141, 5))) == Uid(3, 141, 5)


def test_an_account_that_loses_a_uid_fails_its_check() -> None:
    account = Account()
    account.apply({"event": "issued", "uids": ["0/0/0"]})
    account._in_flight.clear()
    with pytest.raises(AssertionError):
        account.balance().check()


def test_a_mark_seals_what_is_written_so_far_and_stays_true_as_the_ledger_grows(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    book = ledger(path)
    book.issued(uids(0, 1, 2))
    book.consumed(1, uids(0))
    mark = book.mark()
    assert mark["seal"]["bytes"] == path.stat().st_size
    assert mark["account"] == {
        "consumed": [[0, 0, 0, 1]],
        "dropped": {},
        "in_flight": ["0/1/0", "0/2/0"],
    }
    book.consumed(2, uids(1, 2))
    book.close()
    assert is_sealed(path, mark["seal"])


def test_a_mark_of_a_reopened_ledger_seals_the_whole_file(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.issued(uids(0, 1))
        before = book.mark()["seal"]
    with path.open("a") as file:
        file.write('{"event":"torn')
    book = ledger(path)
    assert book.mark()["seal"] == before
    book.consumed(1, uids(0))
    seal = book.mark()["seal"]
    assert seal["bytes"] == path.stat().st_size > before["bytes"]
    book.close()
    assert is_sealed(path, seal) and is_sealed(path, before)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.replace(b"0/1/0", b"0/7/0"),
        lambda content: content[:-1],
        lambda content: b" " + content,
        lambda content: b"",
    ],
    ids=["a changed uid", "a byte less", "a byte more in front", "nothing"],
)
def test_a_seal_is_broken_by_any_change_of_what_it_seals(tmp_path, spoil) -> None:
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.issued(uids(0, 1, 2))
        seal = book.mark()["seal"]
    path.write_bytes(spoil(path.read_bytes()))
    assert not is_sealed(path, seal)
    path.unlink()
    assert not is_sealed(path, seal)


def test_a_roll_back_puts_in_flight_what_later_steps_consumed(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.issued(uids(0, 1, 2, 3, 4))
        book.consumed(1, uids(0))
        book.consumed(2, uids(2, 1))
        book.dropped("poison", uids(4))
        book.consumed(3, uids(3))
        book.roll_back(1)
        assert book.in_flight == uids(1, 2, 3)
        assert book.last_issued == Uid(0, 4, 0)
    assert list(read_events(path))[-1] == {
        "event": "rolled_back",
        "time": 1.5,
        "step": 1,
        "uids": ["0/1/0", "0/2/0", "0/3/0"],
    }
    assert read_ledger(path) == Balance(issued=5, consumed=1, in_flight=3, dropped={"poison": 1})


def test_what_was_undone_once_is_not_undone_again(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    book = ledger(path)
    book.issued(uids(0, 1, 2))
    book.consumed(1, uids(0))
    book.consumed(2, uids(1))
    book.roll_back(1)
    book.consumed(2, uids(2))
    assert consumed_after(path, 1) == uids(2)
    assert consumed_after(path, 0) == uids(0, 2)
    assert consumed_after(path, 2) == []
    book.roll_back(0)
    assert book.in_flight == uids(0, 1, 2)
    book.roll_back(0)
    book.check()
    book.close()


def test_a_carried_account_is_gone_on_from(tmp_path) -> None:
    with ledger(tmp_path / "old.jsonl") as book:
        book.issued(uids(0, 1, 2))
        book.consumed(1, uids(0))
        book.dropped("stale", uids(1))
        account = book.mark()["account"]
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.carried(account, origin="old")
        assert (book.in_flight, book.last_issued) == (uids(2), Uid(0, 2, 0))
        book.reissued(uids(2))
        book.consumed(2, uids(2))
    assert read_ledger(path) == Balance(issued=3, consumed=2, in_flight=0, dropped={"stale": 1})


def test_what_is_not_about_uids_leaves_the_balance_alone(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    with ledger(path) as book:
        book.issued(uids(0))
        book.checkpointed(4)
        book.restarted("sampler-0", "it died", seconds=1.5)
        assert book.balance() == Balance(issued=1, consumed=0, in_flight=1, dropped={})
    kinds = [event["event"] for event in read_events(path)]
    assert kinds == ["issued", "checkpointed", "restarted"]
