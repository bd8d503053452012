"""The clients' port: takes what clients send and finds backends for it, and gives them the answers.

Who is at the other end of a connection is a class of peers (`budgets.py`), and each class has what it may use up:
messages looked at, bytes, requests, and what it leaves unread (`bus/connections.py`). What is over it is refused or
thrown away before it costs more than to read it. A frame is received as a `zmq.Frame`, which knows whether another
follows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import zmq

from lnh_common import limits
from lnh_common.bus import curve, intake, quick
from lnh_common.bus.connections import Connection, Connections, on_the_wire
from lnh_common.errors import Busy, LnhError, MalformedMessage, UnknownOperation, Unreachable
from lnh_common.messages.session import HELLO
from lnh_common.wire import bundles
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import Bundle
from lnh_services.balancer import ports
from lnh_services.balancer.backends import Request
from lnh_services.balancer.budgets import BUDGETS, Peer, Share
from lnh_services.balancer.clients import REGISTERED_ONLY, Clients
from lnh_services.balancer.operations import CREDENTIAL, ROUTED, STAYS
from lnh_services.balancer.put_out import PutOut
from lnh_services.balancer.routing import Router
from lnh_services.balancer.throttle import Throttle

DOMAIN: Final = b"lnh front"

CREDENTIAL_RATE: Final = 20.0  # uses of credentials a second from one address
CREDENTIAL_BURST: Final = 200

_BURST: Final = 256  # messages before others have their turn
_HOLD: Final = 0.002  # ... or seconds


class Front:
    """The port, while the balancer's loop looks at it.

    Args:
        context: of the balancer's sockets.
        keys: the member's for its clients.
        clients: knows which keys are registered.
        router: finds a backend for each request.
        dropped: counts what was thrown away, by why.
        failed: called with what ZeroMQ says of a handshake that failed.
        greet: has `hello` answered; given the time, the client, its header and its tag.
        dispatch: has a request sent to the backend that it was given.
    """

    def __init__(
        self,
        context: zmq.Context[ports.Socket],
        keys: curve.KeyPair,
        clients: Clients,
        router: Router,
        dropped: Counter[str],
        failed: Callable[[int], None],
        greet: Callable[[float, bytes, bytes, bytes], None],
        dispatch: Callable[[Request], None],
    ) -> None:
        self.socket: Final = ports.client_port(context, keys, DOMAIN, 2 * limits.BODY_BYTES)
        self.callers: Final = Connections(self.socket, BUDGETS, self._peer, failed)
        self.stopping = False
        self._clients: Final = clients
        self._router: Final = router
        self._dropped: Final = dropped
        self._greet: Final = greet
        self._dispatch: Final = dispatch
        self._throttle: Final = Throttle(CREDENTIAL_RATE, CREDENTIAL_BURST)
        self._put_out: Final = PutOut(clients)
        self._answers: Final[dict[bytes, Bundle]] = {}  # to be sent, by client

    # --- requests

    def drain(self) -> None:
        """Take the messages that are there, for a moment."""
        receive = self.socket.recv
        take = self.callers.take
        now = time.monotonic()
        end = now + _HOLD
        for _ in range(_BURST):
            if not quick.is_ready(self.socket):
                return
            client = receive(quick.NOBLOCK)
            frames = [receive(0, copy=False)]
            while frames[-1].more:
                frames.append(receive(0, copy=False))
            size = sum(on_the_wire(len(frame)) for frame in frames)
            caller = take(client, frames[0], size)
            if caller is None:
                self._dropped["client gone"] += 1
                continue
            peer = self._peer(caller)
            share = self._router.shares[peer]
            account = _account(caller, peer)
            if share.budget.volume and self._is_too_much(now, share, size):
                self._dropped["over its budget"] += 1
                self.callers.end(caller)
            elif share.looks.has(now, account):
                share.looks.spend(account, self._open(caller, peer, frames))
            else:
                self._dropped["over its budget"] += 1
            now = time.monotonic()
            if now >= end:  # there may be more; others have their turn
                return

    @staticmethod
    def _is_too_much(now: float, share: Share[Request], size: int) -> bool:
        """Count a message against the bytes of its class; tells whether it costs its sender the connection."""
        fits = share.volume.has(now)
        share.volume.spend(size)
        return size > limits.DOOR_BYTES and not fits

    def _open(self, caller: Connection, peer: Peer, frames: list[zmq.Frame]) -> int:
        """Find backends for the requests of a message, and count them."""
        if len(frames) == 1:
            try:
                entries = bundles.unpack([frames[0].bytes])
            except MalformedMessage:
                if len(frames[0]) > limits.HEADER_BYTES:  # nothing that an answer could name, and much of it
                    self._dropped["malformed"] += 1
                    self.callers.end(caller)
                else:
                    self._refuse_frames(caller, frames[0], 1)
                return 1
            for tag, header, token, body in entries:
                self._route(caller, peer, frames[0], [header, token, body], tag)
            return len(entries)
        if len(frames) == 3:
            self._route(caller, peer, frames[0], [frame.bytes for frame in frames], b"")
        else:
            self._refuse_frames(caller, frames[0], len(frames))
            if len(frames) > limits.FRAMES_TAKEN:
                self.callers.end(caller)
        return 1

    def _route(self, caller: Connection, peer: Peer, first: zmq.Frame, frames: list[bytes], client_tag: bytes) -> None:
        """Find a backend for a request.

        Args:
            peer: the class of its sender.
            first: the frame that it came in, or began with, which knows its connection.
            client_tag: names it, and its answer, if it came in a bundle.
        """
        client = caller.identity
        try:
            header = wire.Header.parse(frames[0])
            if header.kind is not wire.Kind.REQUEST:
                raise MalformedMessage("a client sends requests")
            wire.check_frames(frames)
            operation = header.operation
            if operation not in ROUTED:
                raise UnknownOperation(f"operation {operation[: limits.OPERATION_CHARACTERS]!r} is unknown")
            if operation in REGISTERED_ONLY:
                refusal = self._clients.refusal(caller.key)
                if refusal is not None:
                    self._dropped["not a client's"] += 1
                    raise refusal
            now = time.monotonic()
            if operation in CREDENTIAL:
                self._throttle_credentials(now, caller, first)
            if self.stopping:
                raise Unreachable("this member is stopping")
            if operation == HELLO.name:
                self._greet(now, client, frames[0], client_tag)
                return
            end = now + wire.word_within(header.deadline_ms)
            account = _account(caller, peer)
            # An answer is taken to be as long as its request.
            if self.callers.is_full(caller, self._router.shares[peer].bytes_of(account)):
                if self.callers.ask_on(caller, len(frames[1]) + len(frames[2])):
                    self._put_out.add(now, caller.key)
                    self.callers.end(caller)
                self._router.refused += 1
                raise Busy(f"{caller.unread} bytes of answers were not read on this connection")
            # What a session was not vouched for is done here, if it can be: no other member hears of it.
            stays = operation in STAYS or (peer < Peer.SESSION and self._router.own_up() > 0)
            request = self._router.admit(now, client, frames, operation, end, account, client_tag, peer, stays=stays)
        except LnhError as error:
            self.refuse(client, frames[0], error, client_tag)
            return
        if request.backend is not None:
            self._dispatch(request)

    def _throttle_credentials(self, now: float, caller: Connection, frame: zmq.Frame) -> None:
        """Raise Busy for too many uses of credentials by one client; for strangers, from one address."""
        known = self._clients.known and self._clients.refusal(caller.key) is None
        who = caller.key if known else str(frame.get("Peer-Address"))
        if not self._throttle.allows(now, who):
            self._dropped["throttled"] += 1
            name = "this client" if known else who
            raise Busy(f"too many logins by {name}; at most {CREDENTIAL_RATE:g} a second", {"seconds": 1})

    # --- answers

    def answer(self, client: bytes, frames: list[bytes], client_tag: bytes = b"") -> None:
        """Give a client an answer; one in a bundle goes with others, by `flush`."""
        if not client_tag:
            self._send(client, frames)
            return
        waiting = self._answers.get(client)
        if waiting is None:
            waiting = self._answers[client] = Bundle()
        header, token, body = frames
        if waiting.add(client_tag, header, token, body):
            self._send(client, [waiting.take()])

    def flush(self) -> None:
        """Send the answers that wait to go together."""
        for client, waiting in self._answers.items():
            if waiting:
                self._send(client, [waiting.take()])
        self._answers.clear()

    def _send(self, client: bytes, frames: list[bytes]) -> None:
        if self._may_send(client, frames):
            ports.send(self.socket, client, frames, self._dropped)

    def refuse(self, client: bytes, header: bytes, error: LnhError, client_tag: bytes = b"") -> None:
        """Answer a request with an error, as far as its header can be read."""
        refused = intake.refusal(header, error)
        if refused.answer is None:
            self._dropped["malformed"] += 1
        else:
            self.answer(client, refused.answer, client_tag)

    def _refuse_frames(self, caller: Connection, header: zmq.Frame, count: int) -> None:
        self.refuse(caller.identity, header.bytes, MalformedMessage(f"{count} frames; a message has 3"))

    def vouch(self, client: bytes) -> None:
        """Take in a worker's word that a connection has a session with a login."""
        caller = self.callers.of(client)
        if caller is not None:
            caller.vouched = True

    # --- who speaks, and what they leave unread

    def _peer(self, caller: Connection) -> Peer:
        """Find the class of a connection. Until the clients were read once, the hsm alone tells them apart."""
        if caller.vouched or not self._clients.known:
            return Peer.SESSION
        return Peer.STRANGER if self._clients.refusal(caller.key) is not None else Peer.CLIENT

    def admits(self, key: str) -> bool | None:
        """Tell whether a handshake with this Z85 key may go on; None for not now."""
        now = time.monotonic()
        waits = self._put_out.has(now, key)
        if self._clients.refusal(key) is not None:
            waits |= not self._router.shares[Peer.STRANGER].volume.has(now)
        return None if waits else True

    def _may_send(self, client: bytes, frames: list[bytes]) -> bool:
        """Count an answer; False for one that is lost, since its connection is gone, or has too much unread."""
        caller = self.callers.of(client)
        if caller is None:
            self._dropped["client gone"] += 1
        elif self.callers.give(caller, sum(on_the_wire(len(frame)) for frame in frames)):
            return True
        else:
            self._dropped["client does not read"] += 1
        return False


def _account(caller: Connection, peer: Peer) -> bytes:
    """Name who of its class uses up a budget: a client with all its connections, or else a connection."""
    return caller.key.encode() if peer is Peer.CLIENT else caller.identity
