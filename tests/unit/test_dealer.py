"""A DEALER that knows whether its peer is there: nothing is handed over while it is not, and its last words count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from lnh_common.bus.dealer import Dealer

Socket = zmq.Socket[bytes]


class Peer:
    """The serving side, in a context of its own: closing it breaks the connection as the end of a process does."""

    def __init__(self, address: str, holds: int = 1000) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.rcvhwm = holds
        self.socket.bind(address)

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


@pytest.fixture
def address(short_path: Path) -> str:
    return f"ipc://{short_path}/peer"


@pytest.fixture
def asker(address: str) -> Iterator[Asker]:
    asker = Asker(address)
    yield asker
    asker.dealer.close()
    asker.context.term()


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
