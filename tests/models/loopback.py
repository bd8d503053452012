"""A member's client port on loopback, of one thread: what a connection of the SDK is tested against."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import Self

from lnh.net.connection import Connection, Link
from lnh.net.failover import Endpoint
from lnh_common.bus import curve, zap
from lnh_common.errors import LnhError, MemberExpelled, NoCluster, NotActivated, UnknownOperation, Unreachable
from lnh_common.messages.objects import USES
from lnh_common.messages.session import ENDPOINTS, HELLO, PROBE
from lnh_common.wire import bundles, channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import Bundle
from lnh_common.wire.channel import SessionKeys, Statement
from lnh_common.wire.frames import Header, Kind
from processes import free_base_port

KEYS = SessionKeys.derive(b"s" * 32, b"token")
IDENTITY = Ed25519PrivateKey.generate()
PUBLIC = IDENTITY.public_key().public_bytes_raw()
CLUSTER = b"c" * 16
SEED = bytes(range(96))
WITHIN = 20.0
_UNKNOWN = UnknownOperation("no such thing")

Answer = dict[str, object] | LnhError | None  # None: nothing is said


@dataclass
class Member:
    """One member's client port: refuses probes as a balancer does, and answers as its test says.

    Args:
        serve: what it answers to a request.
        keeps: answers that are kept back until `release`.
        before: it is a member of version 0.1, which drops bundles, and knows no carriers.
    """

    serve: Callable[[Header], Answer] = lambda _: {"by": "it"}
    epoch: int = 1
    keys: curve.KeyPair = field(default_factory=curve.KeyPair.generate)
    port: int = 0
    deaf: bool = False  # takes messages in, and says nothing at all
    kept: bool = False
    before: bool = False
    asked: Counter[int] = field(default_factory=Counter)  # requests, by id
    probes: int = 0
    in_bundles: int = 0
    endpoints: tuple[dict[str, object], ...] = ()

    def __enter__(self) -> Self:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = zap.socket(self._context)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        curve.serve(self._socket, self.keys)
        self.port = self.port or free_base_port()
        self._socket.bind(f"tcp://127.0.0.1:{self.port}")
        self._over = threading.Event()
        self._back: list[list[bytes]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Be gone, as a process that is killed."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._socket.close()
            self._zap.close()
            self._context.term()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"127.0.0.1:{self.port}", self.keys.raw_public)

    def told(self, state: str) -> dict[str, object]:
        return {"address": self.endpoint.address, "key": self.endpoint.key, "group": "local", "state": state}

    def _run(self) -> None:
        while not self._over.is_set():
            if self._zap.poll(0):
                self._zap.send_multipart(zap.answer(self._zap.recv_multipart(), zap.everyone))
            if not self.kept and not self.deaf:
                for message in self._back:
                    self._socket.send_multipart(message)
                self._back.clear()
            if not self._socket.poll(5):
                continue
            client, *frames = self._socket.recv_multipart()
            if len(frames) == 3:
                self._take(client, bundles.Entry(b"", *frames))
            elif not self.before:
                self.in_bundles += 1
                for entry in bundles.unpack(frames):
                    self._take(client, entry)

    def _take(self, client: bytes, entry: bundles.Entry) -> None:
        header = Header.parse(entry.header)
        if header.operation == PROBE.name:
            self.probes += 1
            if not self.deaf:
                self._socket.send_multipart(_said(client, entry, wire.error_frames(header, _UNKNOWN)))
            return
        if header.operation != HELLO.name:
            self.asked[header.request_id] += 1
        frames = self._answer(header, entry.body)
        if frames is not None:
            self._back.append(_said(client, entry, frames))

    def _answer(self, header: Header, body: bytes) -> list[bytes] | None:
        if self.before and header.operation in (ENDPOINTS.name, USES.name):
            return wire.error_frames(header, _UNKNOWN)
        if header.operation == ENDPOINTS.name:
            answer: Answer = {"ways": list(self.endpoints)}
        else:
            answer = self.serve(header)
        if answer is None:
            return None
        if isinstance(answer, (MemberExpelled, NoCluster, NotActivated, Unreachable)):
            return wire.error_frames(header, answer)
        if header.operation == HELLO.name:
            public = channel.channel_public_bytes(SEED)
            statement = Statement(
                channel.FORMAT, CLUSTER, "test", self.epoch, public, 2_000_000_000, b"m" * 16, self.endpoint.key
            )
            encoded, signature = statement.sign(IDENTITY)
            fields = {"statement": encoded, "signature": signature, "identity": PUBLIC, "product": "0"}
            return [header.answer(Kind.REPLY).pack(), b"", codec.encode(fields)]
        return [header.answer(Kind.REPLY).pack(), b"", channel.seal_reply(KEYS, header, body, answer)]


def _said(client: bytes, entry: bundles.Entry, frames: list[bytes]) -> list[bytes]:
    """Say an answer as it was asked: in a bundle, or in three frames."""
    if not entry.tag:
        return [client, *frames]
    answer = Bundle()
    answer.add(entry.tag, *frames)
    return [client, answer.take()]


@contextmanager
def connected(*members: Member, epoch: int = 0, failover: bool = True) -> Iterator[Connection]:
    first, *others = members
    link = Link(first.endpoint.address, first.keys.public, curve.KeyPair.generate())
    with Connection(
        link,
        PUBLIC,
        CLUSTER,
        client=b"k" * 16,
        epoch=epoch,
        alternates=[each.endpoint for each in others],
        failover=failover,
    ) as connection:
        yield connection
