"""The connections of a CURVE server: which messages are of one that still stands, what each holds, and who is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import zmq

from lnh_common import limits
from lnh_common.bus import asyncio_socket, connections, curve, zap
from lnh_common.bus.asyncio_socket import CurvePump
from lnh_common.bus.connections import Connection, Connections, on_the_wire
from waits import wait_until

Socket = zmq.Socket[bytes]


class Server:
    """A CURVE server whose connections are looked at, and its peers."""

    def __init__(self) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.zap = zap.socket(self.context)
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_mandatory = True
        self.keys = curve.KeyPair.generate()
        curve.serve(self.socket, self.keys)
        self.failed: list[int] = []
        self.connections = Connections(self.socket, {"all": limits.STRANGERS}, lambda _: "all", self.failed.append)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.outside: zmq.Context[Socket] = zmq.Context()
        self.peers: list[Socket] = []
        self.now = 0.0
        self.received: list[bytes] = []

    def peer(self, keys: curve.KeyPair | None = None) -> Socket:
        socket = self.outside.socket(zmq.DEALER)
        socket.linger = 0
        socket.reconnect_ivl = -1
        curve.connect(socket, self.keys.public, keys or curve.KeyPair.generate())
        socket.connect(f"tcp://127.0.0.1:{self.port}")
        self.peers.append(socket)
        return socket

    def turn(self) -> None:
        """What a loop does in between: handshakes, and who came and went."""
        while self.zap.poll(0):
            self.zap.send_multipart(zap.answer(self.zap.recv_multipart(), zap.everyone))
        self.connections.watch()

    def has_message(self) -> bool:
        self.turn()
        return bool(self.socket.poll(0))

    def receive(self) -> Connection | None:
        """Whose message the next one is; None for that of a closed connection."""
        wait_until(self.has_message, "a message")
        identity, *frames = self.socket.recv_multipart(copy=False)
        self.received.append(frames[0].bytes)
        return self.connections.take(identity.bytes, frames[0], sum(on_the_wire(len(frame)) for frame in frames))

    def count(self, wanted: int) -> None:
        def right() -> bool:
            self.turn()
            return len(self.connections) == wanted

        wait_until(right, f"{wanted} connections")

    def look(self) -> None:
        self.now += 10
        self.connections.look(self.now)

    def close(self) -> None:
        self.connections.close()
        self.socket.close()
        self.zap.close()
        self.context.term()
        self.outside.destroy(0)


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_a_message_names_its_connection_and_key(server: Server) -> None:
    keys = [curve.KeyPair.generate() for _ in range(3)]
    found = set()
    for pair in keys:
        server.peer(pair).send(b"a")
        connection = server.receive()
        assert connection is not None
        assert connection.key == pair.public.decode()
        assert server.connections.of(connection.identity) is connection
        found.add(connection.descriptor)
    assert len(found) == 3
    server.count(3)


def test_what_a_closed_connection_left_is_thrown_away_whoever_has_its_descriptor_now(server: Server) -> None:
    left = server.peer()
    for _ in range(3):
        left.send(b"left")
    wait_until(server.has_message, "its messages")
    left.close()
    server.count(0)
    comes = server.peer()
    comes.send(b"new")
    server.count(1)
    found = [server.receive() for _ in range(4)]  # libzmq takes from both in turn
    heard = dict(zip(server.received, found, strict=True))
    assert found.count(None) == 3
    assert heard[b"new"] is not None
    comes.send(b"again")
    assert server.receive() is heard[b"new"]


def test_what_came_and_is_no_whole_message_yet_is_counted_to_the_byte(server: Server) -> None:
    peer = server.peer()
    for size in (0, 1, 221, 222, 223, 70_000, 1 << 20):
        peer.send_multipart([bytes(size), b"more"])
        connection = server.receive()
    assert connection is not None
    server.look()
    first = connection.taken
    server.look()
    peer.send(bytes(1000))
    assert server.receive() is connection
    assert connection.taken - first == on_the_wire(1000)
    server.look()
    server.look()
    assert server.connections.cut == 0


def test_a_connection_that_holds_more_than_its_class_may_is_cut_and_no_other(server: Server) -> None:
    """What is not read here stands for what is no whole message: neither was delivered."""
    keys = curve.KeyPair.generate()
    small, large = server.peer(keys), server.peer()
    small.send(b"a")
    assert server.receive() is not None
    large.send(b"a")
    assert server.receive() is not None
    small.send(bytes(100_000))
    large.send_multipart([bytes(300_000)] * 20)

    def is_cut() -> bool:
        server.turn()
        server.look()
        return server.connections.cut == 1 and server.connections.cut_last == "127.0.0.1"

    wait_until(is_cut, "the cut")
    server.count(1)
    wait_until(lambda: (found := server.receive()) and found.key == keys.public.decode(), "the message of the other")


def test_what_a_peer_does_not_read_is_known(server: Server) -> None:
    peer = server.outside.socket(zmq.DEALER)
    peer.linger, peer.rcvhwm = 0, 1
    curve.connect(peer, server.keys.public, curve.KeyPair.generate())
    peer.connect(f"tcp://127.0.0.1:{server.port}")
    peer.send(b"a")
    connection = server.receive()
    assert connection is not None
    size = 1 << 20
    given: list[bytes] = []

    def is_filled() -> bool:
        """Whether no more is taken, also once the peer's kernel has acknowledged what was on its way."""
        while server.connections.give(connection, on_the_wire(size)):
            given.append(connection.identity)
            server.socket.send_multipart([connection.identity, bytes(size)])
        most = limits.STRANGERS.unread // 2 + 3 * on_the_wire(size)
        assert connection.unread <= most
        return server.connections.is_full(connection, size) and connection.unread >= limits.STRANGERS.unread // 2

    wait_until(is_filled, "no more is taken")
    for _ in given:
        assert len(peer.recv()) == size

    def all_read() -> bool:
        return not server.connections.is_full(connection, 0) and connection.unread == 0

    wait_until(all_read, "all read")


def test_failed_handshakes_are_told_and_leave_nothing(server: Server) -> None:
    stranger = server.outside.socket(zmq.DEALER)
    stranger.linger = 0
    curve.connect(stranger, curve.KeyPair.generate().public, curve.KeyPair.generate())
    stranger.connect(f"tcp://127.0.0.1:{server.port}")

    def told() -> bool:
        server.turn()
        return bool(server.failed)

    wait_until(told, "the failed handshake")
    stranger.close()
    server.count(0)


def test_a_process_that_grows_again_is_looked_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.peer().send(b"here")
    server.receive()
    sizes = iter([100 << 20, 10 << 20, 15 << 20, 16 << 20])
    monkeypatch.setattr(connections, "_resident", lambda: next(sizes))
    assert [server.connections.look(1.0) for _ in range(4)] == [True, False, True, False]


def test_a_server_without_connections_looks_at_none_until_the_first_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_socket, "_LOOK_IDLE", 3600.0)
    looks: list[int] = []

    def admit(frames: list[bytes]) -> None:
        server.zap.send_multipart(zap.answer(frames, zap.everyone))

    async def go() -> None:
        several = asyncio.Event()

        def look(_: float) -> bool:
            looks.append(len(server.connections))
            if looks[-2:] == [1, 1]:
                several.set()
            return False

        monkeypatch.setattr(server.connections, "look", look)
        pump = CurvePump(server.socket, server.connections, lambda *_: None)
        asking = asyncio_socket.Pump(server.zap, admit)
        server.peer()
        await asyncio.wait_for(several.wait(), 30)
        pump.stop()
        asking.stop()

    asyncio.run(go())
    assert looks.count(0) <= 1
