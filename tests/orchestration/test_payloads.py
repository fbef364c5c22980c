"""Where the contents of queued tuples lie."""

import pytest

from configs.wire import Uid
from orchestration.payloads import Payloads


def uid(ordinal: int) -> Uid:
    return Uid(0, ordinal, 0)


def test_a_batch_is_picked_from_where_its_tuples_were_made_and_each_place_is_named_once():
    payloads = Payloads()
    first, second = object(), object()
    payloads.add([uid(4), uid(1)], first)
    payloads.add([uid(2), uid(3)], second)
    picked = payloads.pick([uid(1), uid(2), uid(4)])
    assert picked.batches == [first, second]
    assert picked.places == [(0, 1), (1, 0), (0, 0)]


def test_of_a_tuple_that_is_made_twice_the_first_counts_until_it_is_forgotten():
    payloads = Payloads()
    payloads.add([uid(1)], "first")
    payloads.add([uid(1), uid(2)], "second")
    assert payloads.pick([uid(1)]) == ([(0, 0)], ["first"])
    payloads.forget([uid(1), uid(7)])
    payloads.add([uid(1)], "third")
    assert payloads.pick([uid(1)]).batches == ["third"]


def test_what_could_not_be_made_is_withdrawn_and_no_more():
    payloads = Payloads()
    payloads.add([uid(1)], "made")
    payloads.add([uid(1), uid(2)], "broken")
    payloads.withdraw([uid(1), uid(2), uid(3)], "broken")
    assert payloads.pick([uid(1)]).batches == ["made"]
    payloads.add([uid(2)], "again")
    assert payloads.pick([uid(2)]).batches == ["again"]


def test_nothing_is_kept_of_what_is_learned_from():
    payloads = Payloads()
    payloads.add([uid(1), uid(2)], "batch")
    payloads.forget([uid(1), uid(2)])
    assert len(payloads) == 0
    with pytest.raises(KeyError):
        payloads.pick([uid(1)])
