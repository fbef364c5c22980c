"""Where ranks meet, whatever their machine's name resolves to."""

import pytest

from learner.rendezvous import interface_of, own_address


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)


def test_ranks_meet_at_the_address_that_the_cluster_knows():
    assert own_address(2, "10.0.0.7") == "10.0.0.7"


def test_the_user_s_word_goes_first(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.8")
    assert own_address(2, "10.0.0.7") == "10.0.0.8"


def test_a_lone_rank_listens_on_loopback():
    assert own_address(1, "10.0.0.7") == "127.0.0.1"


def test_an_interface_is_found_by_its_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
