"""A client's way to its cluster: sockets, and who uses which when.

A `Channel` is one DEALER socket and the requests on it. One thread uses it at a time and does its own
waiting, so a call costs no hand-over to an I/O thread. A `Connection` lends its channels, newest first,
to any number of threads; what was decided about retries and deadlines is in `requests.py`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar

import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import Self

from lnh.requests import Credentials, Request, Requests
from lnh_common import bundles, codec, limits
from lnh_common.bundles import Bundle, Entry
from lnh_common.bus import curve
from lnh_common.bus.dealer import Dealer
from lnh_common.channel import SECRET_BYTES, SessionKeys, Statement, fingerprint
from lnh_common.errors import (
    AnswerUnproven,
    Busy,
    ChannelInvalid,
    ClientRevoked,
    ClientUnknown,
    ClusterIdentityChanged,
    ConnectionClosed,
    MalformedMessage,
    Unreachable,
)
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import HELLO, LOGIN, Login, Welcome

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

CHANNELS: Final = 64  # of one connection: so many threads can wait for answers at once
_QUIET: Final = 0.05  # seconds without a request after which it is looked at whether the member is still there
_TICK: Final = 0.1  # seconds a receive blocks at most before the deadlines are looked at
_STATEMENT_FRESH: Final = 30.0  # seconds; a credential is sealed to a key that was current just now

_NOT_A_CLIENT: Final = frozenset({ClientRevoked.code, ClientUnknown.code})

_monotonic = time.monotonic


@dataclass(frozen=True)
class Link:
    """Where a member's client port is, and the CURVE keys for it.

    Args:
        address: host:port.
        server_key: the member's Z85 public key.
        keys: ours.
    """

    address: str
    server_key: bytes
    keys: curve.KeyPair


class Channel:
    """One socket and what is under way on it. One thread at a time."""

    def __init__(self, link: Link, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self.requests: Final = Requests()
        socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = limits.HIGH_WATER_MARK
        socket.maxmsgsize = 2 * limits.BODY_BYTES
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 1000
        socket.tcp_keepalive = 1
        socket.rcvtimeo = self._receive_ms = int(_TICK * 1000)
        curve.connect(socket, link.server_key, link.keys)
        self._dealer: Final = Dealer(socket, f"tcp://{link.address}", self._changed)
        self._socket: Final = socket
        self._address: Final = link.address
        self._unsent = False
        self._submitted = 0.0

    def submit(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float,
        *,
        route: bytes = b"",
        token: bytes = b"",
        seal: SessionKeys | Credentials | None = None,
    ) -> Request:
        """Seal a request; the next `step` sends it, with whatever else is due by then."""
        now = _monotonic()
        request = self.requests.submit(
            now, time.time(), operation, fields, timeout, route=route, token=token, seal=seal
        )
        if now - self._submitted > _QUIET:
            self._watch()
        self._submitted = now
        return request

    def wait(self, request: Request) -> dict[str, Any]:
        """The answer's fields; raises what the request ended with.

        When the caller is interrupted, the request is forgotten, and a late answer to it dropped.
        """
        try:
            while not request.done:
                self.step(_TICK)
        finally:
            if not request.done:
                self.requests.abandon(request)
        return request.result()

    def step(self, timeout: float) -> list[Request]:
        """Send what is due, wait up to `timeout` seconds for a message, take in all there are; what ended."""
        requests = self.requests
        now = _monotonic()
        ended: list[Request] = []
        if now >= requests.earliest:
            ended, due = requests.turn(now)
            self._unsent = not self._send(now, due)
            if ended:
                return ended
        wait = min(timeout, requests.earliest - now)
        if self._unsent:
            # Until the member is there and takes more, what is due stays due.
            if not self._poll(max(int(min(timeout, _TICK) * 1000), 1)):
                self._watch()
                return ended
            wait = 0.001
        milliseconds = max(int(min(wait, _TICK) * 1000), 1)
        if milliseconds != self._receive_ms:
            self._socket.rcvtimeo = self._receive_ms = milliseconds
        flags = zmq.NOBLOCK if timeout <= 0 else 0
        answers: list[Entry] = []
        # All there are, then all are opened: either is quicker while the processor's caches are its own.
        try:
            while len(answers) < len(requests):
                answers += self._receive(flags)
                flags = zmq.NOBLOCK
        except zmq.Again:
            if not flags:
                self._watch()
        now = _monotonic()
        for answer in answers:
            answered = requests.receive(now, [answer.header, answer.token, answer.body])
            if answered is not None:
                ended.append(answered)
        return ended

    def _watch(self) -> None:
        """See whether the way is gone: looked at only when nothing comes, so that it costs nothing when all is well."""
        self._dealer.watch()
        if self._dealer.problem:
            self.requests.unreachable(Unreachable(f"{self._address}: {self._dealer.problem}"))

    def _changed(self, up: bool) -> None:
        if not up:
            self.requests.resend(_monotonic())

    def _poll(self, milliseconds: int) -> bool:
        """Wait until something can be received, or sent, or happens to the connection; whether the first."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN | zmq.POLLOUT if self._dealer.connected else zmq.POLLIN)
        poller.register(self._dealer.monitor, zmq.POLLIN)
        return bool(dict(poller.poll(milliseconds)).get(self._socket, 0) & zmq.POLLIN)

    def _receive(self, flags: int) -> list[Entry]:
        try:
            return bundles.unpack(self._socket.recv_multipart(flags))
        except MalformedMessage:
            return []  # whatever says this is no member; what it should have answered is asked again

    def _send(self, now: float, due: list[Request]) -> bool:
        """Hand over what is due, in bundles; whether all of it was taken."""
        bundle, within = Bundle(), []
        for request in due:
            within.append(request)
            if not bundle.add(request.tag, *request.frames) and request is not due[-1]:
                continue
            if not self._dealer.send([bundle.take()]):
                self.requests.unsent(now)
                return False
            for each in within:
                self.requests.sent(now, each)
            within.clear()
        return True

    def close(self) -> None:
        self._dealer.close()


class Connection:
    """One client's connection to a cluster; any thread may use it, at the same time as others.

    Args:
        link: the member, its first point of contact.
        identity: the pinned cluster identity, 32 bytes.
        cluster: the 16-byte cluster id.
        client, client_key: the registered client's id and Ed25519 key; neither for a guest.
        epoch: the highest channel epoch seen so far.
        on_epoch: is told when a higher one is seen.
    """

    def __init__(
        self,
        link: Link,
        identity: bytes,
        cluster: bytes,
        *,
        client: bytes = b"",
        client_key: Ed25519PrivateKey | None = None,
        epoch: int = 0,
        on_epoch: Callable[[int], None] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.link: Final = link
        self.identity: Final = identity
        self.cluster: Final = cluster
        self.client: Final = client
        self.product = ""
        self._client_key: Final = client_key
        self._context: Final = context
        self._epoch = epoch
        self._on_epoch: Final = on_epoch
        self._statement: Statement | None = None
        self._statement_until = 0.0
        self._statement_lock: Final = threading.Lock()
        self._idle: list[Channel] = []
        self._made = 0
        self._returned: Final = threading.Condition()
        self._waiting = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"Connection({self.link.address}, cluster={self.cluster.hex()})"

    def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float = limits.DEADLINE,
        *,
        route: bytes = b"",
        token: bytes = b"",
        seal: SessionKeys | Credentials | None = None,
    ) -> dict[str, Any]:
        """One operation, there and back, within `timeout` seconds.

        Raises what the HSM answered; Unreachable, Busy or DeadlineExceeded when nothing was done;
        OutcomeUnknown for a write that may have been.
        """
        channel = self._borrow(timeout)
        try:
            return channel.wait(channel.submit(operation, fields, timeout, route=route, token=token, seal=seal))
        except AnswerUnproven as error:
            heard = error
        finally:
            self._give_back(channel)
        if operation is not LOGIN and self.client and heard.detail.get("heard") in _NOT_A_CLIENT:
            # The balancer says so, or whoever is there in its place. The HSM answers a login under its seal.
            self.call_with_credential(LOGIN, Login(), timeout)
        raise heard

    @contextmanager
    def channel(self, timeout: float = limits.DEADLINE) -> Iterator[Channel]:
        """A channel of one's own, to keep many requests in flight from one thread."""
        channel = self._borrow(timeout)
        try:
            yield channel
        finally:
            self._give_back(channel)

    def statement(self, timeout: float = limits.DEADLINE) -> Statement:
        """The channel key to seal credentials to, as the pinned identity signed it just now.

        Raises ClusterIdentityChanged, or ChannelInvalid when it is not signed or older than one seen before.
        """
        with self._statement_lock:
            if self._statement is not None and _monotonic() < self._statement_until:
                return self._statement
            welcome = codec.convert(self.call(HELLO, Empty(), timeout), Welcome)
            statement = check_welcome(welcome, self.identity, self.cluster)
            if statement.epoch < self._epoch:
                raise ChannelInvalid(f"channel epoch {statement.epoch}; this client has seen {self._epoch}")
            if statement.epoch > self._epoch:
                self._epoch = statement.epoch
                if self._on_epoch is not None:
                    self._on_epoch(statement.epoch)
            self._statement, self._statement_until = statement, _monotonic() + _STATEMENT_FRESH
            self.product = welcome.product
            return statement

    def call_with_credential(
        self, operation: Operation[Q, R], message: Q, timeout: float = limits.DEADLINE, *, route: bytes = b""
    ) -> tuple[R, bytes]:
        """One operation that uses a credential: its reply, and the secret S that it established.

        Raises as `call` does.
        """
        secret = os.urandom(SECRET_BYTES)
        seal = Credentials(self.statement(timeout), secret, self.client, self._client_key)
        fields = self.call(operation, message, timeout, route=route, seal=seal)
        return codec.convert(fields, operation.reply), secret

    def _borrow(self, timeout: float) -> Channel:
        if self._closed:
            raise ConnectionClosed("this connection was closed")
        try:
            return self._idle.pop()
        except IndexError:
            pass
        end = _monotonic() + timeout
        with self._returned:
            self._waiting += 1
            try:
                while not self._closed:
                    if self._idle:
                        return self._idle.pop()
                    if self._made < CHANNELS:
                        channel = Channel(self.link, self._context)
                        self._made += 1
                        return channel
                    if not self._returned.wait(end - _monotonic()):
                        raise Busy(f"{CHANNELS} threads use this connection, which is the limit, for {timeout:g} s")
            finally:
                self._waiting -= 1
        raise ConnectionClosed("this connection was closed")

    def _give_back(self, channel: Channel) -> None:
        self._idle.append(channel)
        if self._waiting or self._closed:
            with self._returned:
                if self._closed:
                    self._close_idle()
                self._returned.notify()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close every channel not in use now, and each other one when it is given back."""
        with self._returned:
            self._closed = True
            self._close_idle()
            self._returned.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_welcome(welcome: Welcome, identity: bytes, cluster: bytes) -> Statement:
    """The statement of an answer to hello, checked against what was pinned.

    Raises ClusterIdentityChanged, or ChannelInvalid for a signature that is not the identity's.
    """
    if welcome.identity != identity:
        raise ClusterIdentityChanged(
            f"the cluster's identity is {fingerprint(welcome.identity)}; registered was {fingerprint(identity)}"
        )
    statement = Statement.verify(welcome.statement, welcome.signature, identity)
    if statement.cluster != cluster:
        raise ClusterIdentityChanged(f"cluster {statement.cluster.hex()} answers; registered was {cluster.hex()}")
    return statement
