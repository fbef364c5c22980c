"""Runs of uids against a plain set (Hypothesis)."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.wire import Uid
from orchestration.uid_set import UidSet

uids = st.builds(Uid, st.integers(0, 1), st.integers(0, 12), st.integers(0, 1))
changes = st.lists(st.tuples(st.sampled_from(["add", "add", "discard"]), uids), max_size=60)


def after(done: list[tuple[str, Uid]]) -> tuple[UidSet, set[Uid]]:
    """The set and its model, which agreed in every answer."""
    found, model = UidSet(), set()
    for what, uid in done:
        changed = (uid not in model) if what == "add" else (uid in model)
        assert getattr(found, what)(uid) == changed
        getattr(model, what)(uid)
    return found, model


@settings(max_examples=100, deadline=None, derandomize=True)
@given(changes)
def test_it_is_a_set(done) -> None:
    found, model = after(done)
    assert len(found) == len(model)
    assert sorted(found) == sorted(model)
    everything = [Uid(e, o, s) for e in range(2) for o in range(13) for s in range(2)]
    assert [uid for uid in everything if uid in found] == sorted(model)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(changes)
def test_it_holds_as_few_runs_as_there_are_stretches(done) -> None:
    found, model = after(done)
    begins = [uid for uid in model if uid._replace(ordinal=uid.ordinal - 1) not in model]
    assert found.runs == len(begins)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(changes, changes)
def test_it_comes_back_from_what_it_writes_and_goes_on(before, later) -> None:
    found, model = after(before)
    runs = json.loads(json.dumps(found.as_runs()))
    again = UidSet.of_runs(runs)
    assert (again.as_runs(), len(again), again.runs) == (runs, len(model), found.runs)
    for what, uid in later:
        assert getattr(again, what)(uid) == getattr(found, what)(uid)
    assert again.as_runs() == found.as_runs()


def test_runs_are_read_in_any_order() -> None:
    found = UidSet.of_runs([[0, 0, 5, 7], [0, 0, 0, 2]])
    assert [uid.ordinal for uid in found] == [0, 1, 5, 6]
    assert found.add(Uid(0, 2, 0))
    assert found.as_runs() == [[0, 0, 0, 3], [0, 0, 5, 7]]


def test_taking_one_out_of_the_middle_leaves_both_sides() -> None:
    found = UidSet.of_runs([[0, 0, 0, 5]])
    assert found.discard(Uid(0, 2, 0))
    assert not found.discard(Uid(0, 2, 0))
    assert found.as_runs() == [[0, 0, 0, 2], [0, 0, 3, 5]]
