"""A DEALER that knows whether its peer is there: nothing is handed over while it is not, and its last words count."""

from __future__ import annotations

import gc
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET

import pytest
import zmq

from lnh_common.bus import monitor, resolver
from lnh_common.bus.dealer import Dealer

Socket = zmq.Socket[bytes]


class Peer:
    """The serving side, in a context of its own: closing it breaks the connection as the end of a process does."""

    def __init__(self, address: str, holds: int = 1000) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.rcvhwm = holds
        self.socket.bind(address)
        self.address = str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def receive(self) -> list[bytes]:
        assert self.socket.poll(5000), "nothing came"
        return self.socket.recv_multipart()

    def end(self) -> None:
        """Send what was handed over to libzmq, and be gone."""
        self.socket.close()
        self.context.term()


class Asker:
    def __init__(self, address: str) -> None:
        self.heard: list[list[bytes]] = []
        self.changes: list[bool] = []
        self.context: zmq.Context[Socket] = zmq.Context()
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = 2000
        socket.reconnect_ivl = 10
        self.dealer = Dealer(socket, address, self.changed)

    def changed(self, up: bool) -> None:
        self.changes.append(up)
        while self.dealer.socket.poll(0):
            self.heard.append(self.dealer.socket.recv_multipart())

    def lose(self) -> None:
        """Wait until the peer is gone."""
        changes = len(self.changes)
        while len(self.changes) == changes:
            assert self.dealer.monitor.poll(5000), "the connection did not break"
            self.dealer.watch()
        assert self.changes[-1] is False

    def end(self) -> None:
        self.dealer.close()
        self.context.term()


@pytest.fixture
def address(short_path: Path) -> str:
    return f"ipc://{short_path}/peer"


@pytest.fixture
def asker(address: str) -> Iterator[Asker]:
    asker = Asker(address)
    yield asker
    asker.end()


def test_nothing_is_handed_over_while_nobody_is_there(asker: Asker, address: str) -> None:
    assert not asker.dealer.send([b"before"])
    assert not asker.dealer.wait(0)
    peer = Peer(address)
    assert asker.dealer.wait(5)
    assert asker.dealer.send([b"while"])
    assert peer.receive()[1:] == [b"while"]
    peer.end()
    asker.lose()
    assert not asker.dealer.send([b"after"])
    peer = Peer(address)
    assert asker.dealer.wait(5)
    assert asker.dealer.send([b"again"])
    assert peer.receive()[1:] == [b"again"]
    peer.end()
    assert asker.changes == [True, False, True]


def test_one_that_is_forgotten_is_closed_and_stalls_no_other(asker: Asker, address: str) -> None:
    socket = asker.context.socket(zmq.DEALER)
    socket.linger = 0
    forgotten = Dealer(socket, address)
    before = len(monitor._READERS)
    del forgotten
    gc.collect()
    assert socket.closed
    assert len(monitor._READERS) == before - 1
    peer = Peer(address)
    assert asker.dealer.wait(5)
    peer.end()


class Happened:
    """In place of a socket's monitor: these events at once, and nothing more."""

    def __init__(self, *events: int) -> None:
        self.messages = [zmq.Frame(struct.pack("=Hi", event, 0)) for event in events]

    def get(self, _: int) -> int:
        return int(zmq.POLLIN) if self.messages else 0

    def recv(self, _: int, *, copy: bool) -> zmq.Frame:
        assert not copy
        return self.messages.pop(0)


def test_two_attempts_that_get_there_at_once_are_one_connection(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq may reach a peer that came back in the very moment in which that attempt of its own is discarded."""
    up, down = zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED
    with monkeypatch.context() as meanwhile:
        for events in ([up], [down], [up, up], [down]):
            meanwhile.setattr(asker.dealer, "monitor", Happened(*events))
            asker.dealer.watch()
    assert asker.changes == [True, False, True, False]


def test_what_had_not_left_when_the_peer_went_never_reaches_the_next_one(asker: Asker, address: str) -> None:
    deaf = Peer(address, holds=1)
    assert asker.dealer.wait(5)
    sent = 0
    while asker.dealer.send([b"stale", bytes(10_000)]):
        sent += 1
    assert sent >= 1000  # far more than the peer and the kernel hold
    deaf.end()
    asker.lose()
    peer = Peer(address)
    assert asker.dealer.wait(5)
    assert asker.dealer.send([b"fresh", b""])
    assert peer.receive()[1] == b"fresh"
    peer.end()


def test_what_a_peer_said_before_it_went_is_heard(asker: Asker, address: str) -> None:
    peer = Peer(address)
    assert asker.dealer.wait(5)
    asker.dealer.send([b"question"])
    way, _ = peer.receive()
    for number in range(700):
        peer.socket.send_multipart([way, b"%d" % number, b"", b"last words"])
    peer.end()
    asker.lose()
    assert asker.heard == [[b"%d" % number, b"", b"last words"] for number in range(700)]


# A peer that has a name


class Hosts:
    """What host names lead to, in this test; one that hangs answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, str] = {}
        self.hang: set[str] = set()
        self.goes_on = threading.Event()
        monkeypatch.setattr("socket.getaddrinfo", self.find)
        monkeypatch.setattr(resolver, "FRESH", 0.0)

    def find(self, host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host in self.hang:
            assert self.goes_on.wait(30)
        if host not in self.addresses:
            raise OSError("no such host")
        return [(AF_INET, 1, 6, "", (self.addresses[host], 0))]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    made = Hosts(monkeypatch)
    yield made
    made.goes_on.set()


def test_a_peer_that_comes_back_with_another_address_is_found_by_its_name(hosts: Hosts) -> None:
    first = Peer("tcp://127.0.0.1:*")
    port = first.address.rpartition(":")[2]
    asker = Asker(f"tcp://moving.test:{port}")
    try:
        assert not asker.dealer.wait(0.3)  # nobody knows the name yet
        asker.dealer.renew()  # which finds nothing to renew
        hosts.addresses["moving.test"] = "127.0.0.1"
        assert asker.dealer.wait(5)
        assert asker.dealer.send([b"one"])
        assert first.receive()[1:] == [b"one"]
        first.end()
        asker.lose()
        hosts.addresses["moving.test"] = "127.0.0.2"
        second = Peer(f"tcp://127.0.0.2:{port}")
        try:
            assert asker.dealer.wait(5)
            assert asker.dealer.send([b"two"])
            assert second.receive()[1:] == [b"two"]
            hosts.addresses.clear()  # the name server knows it no more; where it was last is still the best there is
            assert asker.dealer.connected
        finally:
            second.end()
    finally:
        asker.end()


def test_a_name_that_nobody_answers_for_holds_up_nothing_else(hosts: Hosts) -> None:
    hosts.hang.add("lost.test")
    peer = Peer("tcp://127.0.0.1:*")
    asker = Asker(peer.address)
    socket = asker.context.socket(zmq.DEALER)
    socket.linger = 0
    lost = Dealer(socket, "tcp://lost.test:7100")
    try:
        assert asker.dealer.wait(5)
        for number in range(20):
            lost.watch()
            assert not lost.connected
            assert asker.dealer.send([b"%d" % number])
            assert peer.receive()[1:] == [b"%d" % number]
    finally:
        lost.close()
        asker.end()
        peer.end()
