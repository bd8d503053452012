"""The registered clients as the balancer follows them: the questions and answers, without a socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from lnh_common.bus import curve
from lnh_common.errors import ClientRevoked, ClientUnknown, DeadlineExceeded, LnhError, NoCluster
from lnh_common.messages import store
from lnh_common.wire import codec
from lnh_services.balancer.clients import Clients, Question

KEY = os.urandom(32)
OTHER = os.urandom(32)


def z85(key: bytes) -> str:
    return curve.to_z85(key).decode()


def item(name: str, key: bytes, *, revoked: bool = False) -> store.Item:
    head = codec.encode({"id": name.encode(), "name": name, "curve_key": key, "revoked": revoked, "more": 1})
    return store.Item(key=store.Key(table="client", id=name.encode()), version=1, head=head)


class Conversation:
    """Plays the store."""

    def __init__(self) -> None:
        self.clients = Clients()
        self.steps = self.clients.follow()
        self.asked = next(self.steps)

    def say(self, answer: Any) -> Any:
        self.asked = self.steps.throw(answer) if isinstance(answer, LnhError) else self.steps.send(answer)
        return self.asked

    def wants(self, kind: type[Any]) -> Any:
        assert isinstance(self.asked, Question)
        assert isinstance(self.asked.message, kind)
        return self.asked.message

    def read(self, *items: store.Item, index: int = 5) -> None:
        self.wants(store.Scan)
        self.say(store.Scanned(items=items, more=False, index=index, current=True))
        assert self.wants(store.Watch).index == index


@pytest.fixture
def talk() -> Iterator[Conversation]:
    conversation = Conversation()
    yield conversation
    conversation.steps.close()


def test_until_the_clients_were_read_the_hsm_decides(talk: Conversation) -> None:
    assert talk.clients.refusal(z85(KEY)) is None
    talk.read(item("a", KEY))
    assert talk.clients.refusal(z85(KEY)) is None
    assert isinstance(talk.clients.refusal(z85(OTHER)), ClientUnknown)


def test_pages_are_read_to_the_end_and_watched_from_the_first_pages_index(talk: Conversation) -> None:
    talk.say(store.Scanned(items=(item("a", KEY),), more=True, index=5, current=True))
    assert talk.wants(store.Scan).after == b"a"
    assert not talk.clients.known
    talk.say(store.Scanned(items=(item("b", OTHER),), more=False, index=9, current=True))
    assert talk.wants(store.Watch).index == 5
    assert len(talk.clients) == 2


def test_changes_are_taken_one_by_one(talk: Conversation) -> None:
    talk.read(item("a", KEY), item("b", OTHER))
    talk.say(store.Changed(index=7, keys=(item("a", KEY).key, item("b", OTHER).key)))
    assert talk.wants(store.Get).key.id == b"a"
    talk.say(store.Got(item=item("a", KEY, revoked=True), index=8, current=True))
    talk.say(store.Got(item=None, index=8, current=True))
    assert talk.wants(store.Watch).index == 7
    assert isinstance(talk.clients.refusal(z85(KEY)), ClientRevoked)
    assert isinstance(talk.clients.refusal(z85(OTHER)), ClientUnknown)
    talk.say(store.Changed(index=9, keys=()))
    assert talk.wants(store.Watch).index == 9


def test_one_too_far_behind_reads_all_anew(talk: Conversation) -> None:
    talk.read(item("a", KEY))
    talk.say(store.Changed(index=900, keys=(), everything=True))
    talk.read(item("b", OTHER), index=901)
    assert isinstance(talk.clients.refusal(z85(KEY)), ClientUnknown)


def test_without_the_store_what_was_read_last_holds_and_without_a_cluster_nothing(talk: Conversation) -> None:
    talk.read(item("a", KEY))
    assert talk.say(DeadlineExceeded("gone")) is None
    assert isinstance(talk.clients.refusal(z85(OTHER)), ClientUnknown)
    talk.say(None)
    talk.wants(store.Scan)
    assert talk.say(NoCluster("left")) is None
    assert talk.clients.refusal(z85(OTHER)) is None
    assert len(talk.clients) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_counts_for_the_client_that_is_not_revoked(talk: Conversation, order: int) -> None:
    talk.read(*[item("a", KEY, revoked=True), item("b", KEY)][::order])
    assert talk.clients.refusal(z85(KEY)) is None


def test_a_record_that_does_not_read_is_no_client(talk: Conversation) -> None:
    bad = (b"\xff", codec.encode([1]), codec.encode({"name": "x", "curve_key": b"short", "revoked": False}))
    items = [
        store.Item(key=store.Key(table="client", id=bytes([n])), version=1, head=head) for n, head in enumerate(bad)
    ]
    talk.read(*items, item("a", KEY))
    assert len(talk.clients) == 1
