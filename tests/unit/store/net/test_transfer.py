"""Snapshots between two stores over a connection that loses, repeats and delays: they arrive whole or not at all."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lnh_common.errors import SealBroken
from lnh_common.messages.store import Commit, Key, MemberInfo, Put
from lnh_services.store.disk.snapshots import Incoming
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId, Milliseconds, Open, Write
from lnh_services.store.log.window import Base, Configuration
from lnh_services.store.net import transfer
from lnh_services.store.net.transfer import Chunk, End, Offer, Stop, Transfer, Transfers, Want
from lnh_services.store.replication.messages import Install, Persist
from waits import until

CLUSTER = ClusterId(b"C" * 16)
ONE, TWO = MemberId(b"1" * 16), MemberId(b"2" * 16)
EPOCH = Epoch(1, ONE)
NOW = 1_700_000_000_000
FIRST = Base(log.genesis(CLUSTER), Milliseconds(0), Configuration())
PATIENCE = 30.0
ITEMS = 120


@dataclass
class Side:
    """One store: its engine, its transfers, and what came of them."""

    id: MemberId
    engine: Disk
    arrived: list[tuple[MemberId, Epoch, Base, Incoming]] = field(default_factory=list)
    damaged: list[SealBroken] = field(default_factory=list)
    transfers: Transfers = field(init=False)


class Connection:
    """Carries words between the two, as badly as it is told to."""

    def __init__(self, *ends: Side) -> None:
        self.ends = {end.id: end for end in ends}
        self.random = random.Random(5)
        self.loss = 0.0
        self.cut = False
        self.said: list[Transfer] = []
        self.change: Callable[[Transfer], Transfer] = lambda word: word
        for end in ends:
            end.transfers = Transfers(
                end.engine,
                self.sayer(end.id),
                lambda *arrival, end=end: end.arrived.append(arrival),
                end.damaged.append,
            )

    def sayer(self, sender: MemberId) -> Callable[[MemberId, Transfer], None]:
        def say(to: MemberId, word: Transfer) -> None:
            self.said.append(word)
            if self.cut or self.random.random() < self.loss:
                return
            word = self.change(word)
            for _ in range(2 if self.random.random() < self.loss else 1):
                delay = self.random.random() * 0.02 if self.loss else 0.0
                asyncio.get_running_loop().call_later(delay, self.ends[to].transfers.hear, CLUSTER, sender, word)

        return say


def filled(directory: Path, member: MemberId, items: int) -> Disk:
    directory.mkdir()
    engine = Disk(directory)
    info = MemberInfo(id=ONE, name="A", host="127.0.0.1", port=7000, key=b"k" * 32)
    entries = [log.make_entry(FIRST.position, EPOCH, Milliseconds(NOW), Open((info,), (ONE,)))] if items else []
    for n in range(items):
        change = Put(key=Key(table="t", id=b"%d" % n), expected=0, head=b"", body=os.urandom(60_000))
        commit = Commit(client=b"c" * 16, session=b"s" * 16, sequence=n + 1, issued_at=NOW, changes=(change,))
        entries.append(log.make_entry(entries[-1].position(), EPOCH, Milliseconds(NOW), Write(commit)))
    engine.persist(
        Persist(
            number=1, found=(CLUSTER, member, FIRST), promised=EPOCH, entries=tuple(entries), committed=len(entries)
        ),
        "boot",
    )
    return engine


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Awaitable[None]]], None]:
    monkeypatch.setattr(transfer, "AGAIN", 0.05)
    monkeypatch.setattr(transfer, "PATIENCE", 1.0)

    async def run(scenario: Callable[..., Awaitable[None]]) -> None:
        one = Side(ONE, filled(tmp_path / "one", ONE, ITEMS))
        two = Side(TWO, filled(tmp_path / "two", TWO, 0))
        connection = Connection(one, two)
        try:
            await scenario(one, two, connection)
        finally:
            for end in (one, two):
                await end.transfers.close()
                end.engine.close()
        for end in (one, two):
            assert not list(end.engine.directory.glob("incoming-*")) or end.arrived

    return lambda scenario: asyncio.run(run(scenario))


Play = Callable[[Callable[[Side, Side, Connection], Awaitable[None]]], None]


def installed(end: Side) -> int:
    _, _, base, incoming = end.arrived.pop()
    end.engine.install(Install(2, 1, base, aside=False, dropped=()), incoming)
    return end.engine.count("t", b"")


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_snapshot_arrives_whole_however_bad_the_connection(play: Play, loss: float) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        connection.loss = loss
        one.transfers.send(TWO, EPOCH)
        one.transfers.send(TWO, EPOCH)  # one at a time
        await until(lambda: two.arrived, "the snapshot")
        assert two.arrived[0][:2] == (ONE, EPOCH)
        assert len({word.session for word in connection.said if isinstance(word, Offer)}) == 1
        assert installed(two) == ITEMS
        connection.loss = 0.0
        await until(lambda: not one.transfers._sending, "the sender's end")

    play(scenario)


def test_a_cut_connection_goes_on_where_it_was(play: Play) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        one.transfers.send(TWO, EPOCH)
        await until(lambda: sum(isinstance(word, Chunk) for word in connection.said) > 5, "some chunks")
        connection.cut = True
        before = len(connection.said)
        await until(lambda: len(connection.said) > before + 6, "words that are lost")
        connection.cut = False
        before = len(connection.said)
        await until(lambda: two.arrived, "the snapshot")
        assert min(word.number for word in connection.said[before:] if isinstance(word, Chunk)) > 0
        assert installed(two) == ITEMS

    play(scenario)


def test_the_sender_is_never_more_than_a_window_ahead(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "WINDOW", 3)

    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        wanted, ahead = [0], []

        def look(word: Transfer) -> Transfer:
            if isinstance(word, Want):
                wanted[0] = max(wanted[0], word.next)
            if isinstance(word, Chunk):
                ahead.append(word.number - wanted[0])
            return word

        connection.change = look
        one.transfers.send(TWO, EPOCH)
        await until(lambda: two.arrived, "the snapshot")
        assert 0 < max(ahead) <= 2
        assert installed(two) == ITEMS

    play(scenario)


def test_a_chunk_that_was_changed_spoils_the_snapshot_and_nothing_else(play: Play) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        def spoil(word: Transfer) -> Transfer:
            if isinstance(word, Chunk) and word.number == 2:
                return Chunk(word.session, 2, word.data[:-1] + bytes([word.data[-1] ^ 1]))
            return word

        connection.change = spoil
        one.transfers.send(TWO, EPOCH)
        await until(lambda: any(isinstance(word, Stop) for word in connection.said), "the refusal")
        await until(lambda: not one.transfers._sending, "the sender's end")
        assert not two.arrived
        connection.change = lambda word: word
        one.transfers.send(TWO, EPOCH)
        await until(lambda: two.arrived, "another one")
        assert installed(two) == ITEMS

    play(scenario)


def test_whoever_hears_nothing_any_more_gives_up_and_keeps_nothing(play: Play) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        one.transfers.send(TWO, EPOCH)
        await until(lambda: sum(isinstance(word, Chunk) for word in connection.said) > 5, "some chunks")
        connection.cut = True
        await until(lambda: not one.transfers._sending and two.transfers._receiving is None, "the end")
        assert not two.arrived
        assert not list(two.engine.directory.glob("incoming-*"))
        assert not one.engine._outgoing

    play(scenario)


def test_a_newer_offer_takes_the_place_of_one_under_way_and_an_older_does_not(play: Play) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        higher = Epoch(2, ONE)
        one.transfers.send(TWO, EPOCH)
        await until(lambda: sum(isinstance(word, Chunk) for word in connection.said) > 5, "some chunks")
        one.transfers.send(TWO, higher)
        two.transfers.hear(CLUSTER, ONE, Offer(b"old", EPOCH))
        await until(lambda: two.arrived, "the snapshot")
        two.transfers.hear(CLUSTER, ONE, End(b"none", 1, b""))  # of nothing that is known: answered, and no more
        assert connection.said[-1] == Stop(b"none")
        assert [arrival[1] for arrival in two.arrived] == [higher]
        assert installed(two) == ITEMS

    play(scenario)


@pytest.mark.parametrize("turns", range(3))
def test_one_that_is_replaced_just_when_a_chunk_comes_leaves_nothing(play: Play, turns: int) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        connection.cut = True  # the test is the sender
        two.transfers.hear(CLUSTER, ONE, Offer(b"first", EPOCH))
        await until(lambda: Want(b"first", 0) in connection.said, "the first one's beginning")
        two.transfers.hear(CLUSTER, ONE, Chunk(b"first", 7, b"is not the next"))
        for _ in range(turns):  # of the loop: until the chunk is being looked at, or was
            await asyncio.sleep(0)
        two.transfers.hear(CLUSTER, ONE, Offer(b"second", Epoch(2, ONE)))
        await until(lambda: Want(b"second", 0) in connection.said, "the second one's beginning")

    play(scenario)


def test_one_that_is_given_up_before_it_began_can_be_sent_again(play: Play) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        one.transfers.send(TWO, EPOCH)
        one.transfers.stop()
        one.transfers.send(TWO, EPOCH)
        await until(lambda: two.arrived, "the snapshot")
        assert installed(two) == ITEMS

    play(scenario)


def test_a_snapshot_ends_when_the_state_it_is_of_is_erased(play: Play) -> None:
    async def scenario(one: Side, two: Side, connection: Connection) -> None:
        one.transfers.send(TWO, EPOCH)
        await until(lambda: sum(isinstance(word, Chunk) for word in connection.said) > 5, "some chunks")
        one.engine.erase()
        await until(lambda: two.transfers._receiving is None, "the end")
        assert not two.arrived

    play(scenario)
