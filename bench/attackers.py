"""Peers that try to take a member's service from others, each by one of the ways that once worked.

    python -m bench.attackers WAY --seconds N --client DIR --password-file FILE

Each runs at idle priority (SCHED_IDLE) from several connections: what it takes, the member gives it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

import lnh
from lnh.configuration import Configuration
from lnh.objects import encoding
from lnh.sessions import Session
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.messages import objects
from lnh_common.messages.base import Empty, Operation
from lnh_common.messages.session import HELLO
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import TAG_BYTES, Bundle
from lnh_common.wire.channel import Envelope

CONNECTIONS: Final = 8
PEER_PORT, DOOR_PORT = 3, 4  # after the base port
_NOBLOCK: Final = zmq.NOBLOCK


@dataclass(frozen=True)
class Target:
    """The member that is attacked, and what a client of it has."""

    base_port: int
    client: Path
    password: str
    ends: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends

    def connect(self, port: int, key: bytes, keys: curve.KeyPair | None = None, holds: int = 0) -> zmq.Socket[bytes]:
        """A connection; it takes so many answers before they are read (0: any number)."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        made = context.socket(zmq.DEALER)
        made.linger = 0
        made.rcvhwm, made.sndhwm = holds, 64
        curve.connect(made, key, keys or curve.KeyPair.generate())
        made.connect(f"tcp://127.0.0.1:{self.base_port + port}")
        return made

    @property
    def key(self) -> bytes:
        """The CURVE key of the client port, as everybody may ask for it at the door."""
        return curve.to_z85(Configuration(self.client).registration().member_key)

    def as_stranger(self) -> list[zmq.Socket[bytes]]:
        return [self.connect(0, self.key) for _ in range(CONNECTIONS)]

    def as_visitor(self) -> list[zmq.Socket[bytes]]:
        return [self.connect(DOOR_PORT, curve.DOOR.public) for _ in range(CONNECTIONS)]

    def as_client(self, holds: int = 0) -> list[zmq.Socket[bytes]]:
        keys = Configuration(self.client).registration().load_curve()
        return [self.connect(0, self.key, keys, holds) for _ in range(CONNECTIONS)]

    def flood(self, sockets: list[zmq.Socket[bytes]], frames: Callable[[], list[bytes]], *, reads: bool = True) -> None:
        """Send on all of them as much as they take, until it is over."""
        poller = zmq.Poller()
        for one in sockets:
            poller.register(one, zmq.POLLOUT | (zmq.POLLIN if reads else 0))
        while not self.is_over:
            for one, ready in poller.poll(100):
                with suppress(zmq.Again):
                    while ready & zmq.POLLIN:
                        one.recv_multipart(_NOBLOCK)
                with suppress(zmq.Again):
                    if ready & zmq.POLLOUT:
                        one.send_multipart(frames(), _NOBLOCK, copy=False)


def fail_handshakes(target: Target) -> None:
    """Begin CURVE handshakes that fail, at every port in turn, one after another."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
    hello = b"\x04\xc8\x05HELLO\x01\x00" + os.urandom(192)
    ports = itertools.cycle((PEER_PORT, PEER_PORT, 0, DOOR_PORT))
    while not target.is_over:
        made = [socket.create_connection(("127.0.0.1", target.base_port + next(ports))) for _ in range(CONNECTIONS)]
        for one in made:
            with suppress(OSError):
                one.sendall(greeting + hello)
        for one in made:
            one.settimeout(1.0)
            with one, suppress(OSError):
                while one.recv(4096):
                    pass


def send_empty_entries(target: Target) -> None:
    """Send bundles of 2 MB without anything in them, and close the connections while they are on the way."""
    bundle = bytes(16 * 133_116)
    while not target.is_over:
        sockets = target.as_stranger()
        ends = min(target.ends, time.monotonic() + 2)
        Target(target.base_port, target.client, "", ends).flood(sockets, lambda: [bundle])
        for one in sockets:
            one.close()


def send_many_frames(target: Target) -> None:
    """Send messages of 1200 frames of 1 MiB at the client port, and of as much as they may have at the door."""
    large, small = [bytes(limits.MIB)] * 1200, [bytes(4000)] * 30_000
    sockets = [*target.as_stranger(), *target.as_visitor()]
    kinds = itertools.cycle((large, small))
    target.flood(sockets, lambda: next(kinds))


def greet(target: Target) -> None:
    """Say hello at the door and at the client port."""
    header = wire.request(HELLO.name, 1, 10_000).pack()
    target.flood([*target.as_visitor(), *target.as_stranger()], lambda: [header, b"", codec.encode(Empty())])


def read_nothing(target: Target) -> None:
    """Have a session encrypt a megabyte again and again, and read no answer."""
    with lnh.connect("demo", directory=target.client) as cluster:
        session = cluster.keyring("payments").login(lnh.Role.KRCO, target.password)
        key = session.generate_key(lnh.KeyType.AES, 256, label="attacked")
        fields = encoding.use_fields(key.handle, Mechanism.AES_GCM, bytes(limits.MIB - 1024), None)
        frames = sealed(session, objects.ENCRYPT, fields, session.route)
        target.flood(target.as_client(holds=1), lambda: frames, reads=False)


def be_refused(target: Target) -> None:
    """Ask, as a client that has not logged in, for what needs a login."""
    with lnh.connect("demo", directory=target.client) as cluster:
        fields = encoding.use_fields(bytes(16), Mechanism.ECDSA, bytes(32), None)
        header, token, body = sealed(cluster.client_session(), objects.SIGN, fields, bytes(16))
        numbers = itertools.count(1)

        def bundle() -> list[bytes]:
            entries = Bundle()
            while not entries.add(next(numbers).to_bytes(TAG_BYTES, "big"), header, token, body):
                pass
            return [entries.take()]

        target.flood(target.as_client(), bundle)


def spin(target: Target) -> None:
    """Use the processor, and ask for nothing: what the others are measured beside."""
    while not target.is_over:
        random.random()


WAYS: Final[dict[str, Callable[[Target], None]]] = {
    "a": fail_handshakes,
    "b": send_empty_entries,
    "c": send_many_frames,
    "d": greet,
    "e": read_nothing,
    "f": be_refused,
    "nothing": spin,
}


def sealed(session: Session, operation: Operation[Any, Any], fields: dict[str, object], route: bytes) -> list[bytes]:
    """A request of a session, which is answered however often it comes for as long as its time counts as now."""
    token, keys = session.credentials()
    header = wire.request(operation.name, 1, 10_000, route=route)
    envelope = Envelope(int(time.time() * 1000), 10_000, os.urandom(16), 0, fields)
    return [header.pack(), token, channel.seal_request(keys, header, envelope)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.attackers", description=__doc__)
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--client", type=Path, required=True, help="the directory of a registered client")
    parser.add_argument("--password-file", type=Path, required=True, help="of the KRCO of the keyring payments")
    options = parser.parse_args()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    password = options.password_file.read_text().strip()
    port = Configuration(options.client).registration().member.rpartition(":")[2]
    WAYS[options.way](Target(int(port), options.client, password, time.monotonic() + options.seconds))
    os._exit(0)  # what is still to be sent is not


if __name__ == "__main__":
    sys.exit(main())
