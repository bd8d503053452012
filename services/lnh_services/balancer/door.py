"""The port with the published key: it answers `hello` alone, so that a client learns the key of the clients' port.

Whoever comes here is a stranger. All of them may have so many messages looked at together (`limits.STRANGERS`).
Then the port rests, and what they send waits in their own connections.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import zmq

from lnh_common import limits
from lnh_common.bus.connections import Connection, Connections, on_the_wire
from lnh_common.bus.quiet import Quiet
from lnh_common.errors import LnhError, MalformedMessage, UnknownOperation
from lnh_common.messages.session import HELLO
from lnh_common.rate import Rate
from lnh_common.wire import frames as wire
from lnh_services.balancer.budgets import Peer

_HOLD: Final = 0.001  # seconds of messages before others have their turn: half of what the clients' port has


def stranger(_: Connection) -> Peer:
    """Return the class of every connection to this port."""
    return Peer.STRANGER


class Door:
    """The port, while the balancer's loop looks at it.

    Args:
        quiet: the sockets that are looked at seldom; this one is taken out while it rests.
        dropped: counts what was thrown away, by why.
        ask: has `hello` answered; given the time, the visitor, and the header of the request.
        refuse: sends a visitor an error; given the visitor, the header that it sent, and the error.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        visitors: Connections[Peer],
        quiet: Quiet,
        dropped: Counter[str],
        ask: Callable[[float, bytes, bytes], None],
        refuse: Callable[[bytes, bytes, LnhError], None],
    ) -> None:
        self.socket: Final = socket
        self.visitors: Final = visitors
        self._quiet: Final = quiet
        self._dropped: Final = dropped
        self._ask: Final = ask
        self._refuse: Final = refuse
        self._visits: Final = Rate(limits.STRANGERS.looks)
        self._rests = False  # visitors have used up what they may
        quiet.add(socket, visitors.monitor)

    def drain(self) -> None:
        """Take the messages that are there, for a moment; begin to rest when visitors have used up what they may."""
        now = time.monotonic()
        end = now + _HOLD
        while now < end:
            if not self._visits.has(now):
                self._rests = True
                self._quiet.remove(self.socket)
                return
            try:
                client, *received = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            size = sum(on_the_wire(len(frame)) for frame in received)
            visitor = self.visitors.take(client.bytes, received[0], size)
            self._visits.spend(1)
            if visitor is None:
                self._dropped["client gone"] += 1
            elif len(received) > limits.FRAMES_TAKEN:
                self.visitors.end(visitor)
            else:
                self._serve(now, client.bytes, [frame.bytes for frame in received])
            now = time.monotonic()

    def reopen(self, now: float) -> bool:
        """Look at the port again where it has rested enough; tell whether that is so."""
        if not self._rests or not self._visits.has(now):
            return False
        self._rests = False
        self._quiet.add(self.socket)
        return True

    def _serve(self, now: float, client: bytes, frames: list[bytes]) -> None:
        try:
            header = wire.Header.parse(frames[0])
            wire.check_frames(frames)
            if header.kind is not wire.Kind.REQUEST:
                raise MalformedMessage("a client sends requests")
            if header.operation != HELLO.name:
                raise UnknownOperation(f"operation {header.operation!r} is not served here")
            self._ask(now, client, frames[0])
        except LnhError as error:
            self._refuse(client, frames[0], error)
