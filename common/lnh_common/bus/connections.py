"""The connections of a CURVE server over TCP, and how many bytes each has under way beyond what libzmq bounds.

libzmq bounds the bytes of a frame and the number of whole messages, and neither the frames of one message nor the bytes
that a peer has not read. The kernel counts the bytes of each connection (tcp(7), TCP_INFO), so both are known here:

    held      received, and not delivered as a message: it lies in libzmq, or in the kernel
    unread    given to libzmq to be sent, and not acknowledged by the peer's machine

Of connections of which nothing was delivered since the last look, those are cut that hold the most, until the others
together hold no more than their class may (`overdrawn`, which is pure). libzmq then forgets what it held.

libzmq delivers the messages of a connection that is closed already, and its descriptor is soon another's. So every
handshake is given a number (`zap.py`), which each message carries: `take` tells whether its connection still stands.
"""

from __future__ import annotations

import os
import socket as sockets
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

import zmq

from lnh_common import limits
from lnh_common.bus import curve, monitor, zap

T = TypeVar("T")

EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | curve.FAILED_EVENTS
LOOK_AGAIN: Final = 1.0  # seconds between two looks at all connections while the process does not grow
GROWN: Final = 4 << 20  # bytes that the process grew by, after which they are looked at at once
LOOK_UNREAD: Final = 64 << 10  # bytes given, beyond which it is looked how many were read

_COUNTED: Final = struct.Struct("=QQ")  # of struct tcp_info, from 120 on: tcpi_bytes_acked, tcpi_bytes_received
_COUNTED_AT: Final = 120
_SHORT_FRAME: Final = 255
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def on_the_wire(size: int) -> int:
    """Count the bytes that a frame of this size takes in a connection under CURVE (RFC 26 in RFC 37)."""
    return size + (35 if size + 33 <= _SHORT_FRAME else 42)


class Connection:
    """One connection.

    Attributes:
        descriptor: of its socket, which is libzmq's.
        identity, key: its routing id and its peer's Z85 public key; empty until its first message.
        taken: bytes of the messages that were delivered.
        given: bytes of what was given to libzmq to be sent.
        unread: of those, as last looked at.
        asked_on: bytes of requests that came while it was full and read nothing.
        vouched: for its owner to set: whether a logged-in session speaks here.
    """

    __slots__ = (
        "acked", "after", "asked_at", "asked_on", "descriptor", "given", "identity", "key", "looked", "number", "taken",
        "unread", "vouched",
    )  # fmt: skip

    def __init__(self, descriptor: int, after: int) -> None:
        self.descriptor = descriptor
        self.after = after  # its handshake has a number above this
        self.number = 0
        self.identity = b""
        self.key = ""
        self.taken = self.given = self.acked = self.unread = 0
        self.looked = -1  # what was taken at the last look
        self.asked_on, self.asked_at = 0, -1  # ... and how much it had acknowledged then
        self.vouched = False


def overdrawn(held: Mapping[T, int], budget: int) -> list[T]:
    """Choose the connections to cut, those that hold the most, so that the rest together is within the budget."""
    total = sum(held.values())
    cut = []
    for which in sorted(held, key=lambda each: held[each], reverse=True):
        if total <= budget:
            break
        total -= held[which]
        cut.append(which)
    return cut


class Connections(Generic[T]):
    """The connections of one bound socket. One thread uses it, and answers its ZAP requests.

    Args:
        socket: a CURVE server, not bound yet.
        budgets: what each class may have.
        classify: the class of a connection; one that has said nothing yet has an empty key.
        on_failed: told the event of each handshake that failed.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        budgets: Mapping[T, limits.Budget],
        classify: Callable[[Connection], T],
        on_failed: Callable[[int], None],
    ) -> None:
        self.monitor: Final = socket.get_monitor_socket(EVENTS)
        self.cut = 0
        self.cut_last = ""  # the address of the last one that was cut
        self._socket: Final = socket
        self._budgets: Final = budgets
        self._classify: Final = classify
        self._on_failed: Final = on_failed
        self._open: Final[dict[int, Connection]] = {}
        self._known: Final[dict[bytes, Connection]] = {}
        self._numbered = 0
        self._unread: dict[T, int] = dict.fromkeys(budgets, 0)  # by class
        self._next_look = 0.0
        self._size = 0

    def __len__(self) -> int:
        return len(self._open)

    def watch(self) -> None:
        """Take in which connections came and went."""
        for said in monitor.read(self.monitor):
            if said.event == zmq.EVENT_ACCEPTED:
                self._gone(said.value)
                self._open[said.value] = Connection(said.value, self._numbered)
            elif said.event == zmq.EVENT_DISCONNECTED:
                self._gone(said.value)
            else:
                self._on_failed(said.event)
        self._numbered = zap.numbered()

    def _gone(self, descriptor: int) -> None:
        gone = self._open.pop(descriptor, None)
        if gone is not None:
            self._known.pop(gone.identity, None)

    def of(self, identity: bytes) -> Connection | None:
        """Return the connection with this routing id, if a message of it was taken and it still stands."""
        return self._known.get(identity)

    def take(self, identity: bytes, frame: zmq.Frame, size: int) -> Connection | None:
        """Count a message that was delivered.

        Args:
            frame: its first one after the routing id.
            size: of all its frames, on the wire.

        Returns the message's connection, or None for a closed one: that message is to be thrown away.
        """
        connection = self._known.get(identity) or self._find(identity, frame)
        if connection is not None:
            connection.taken += size
        return connection

    def _find(self, identity: bytes, frame: zmq.Frame) -> Connection | None:
        self.watch()
        connection = self._open.get(int(frame.get(zmq.SRCFD)))
        if connection is None:
            return None
        number = int(_said(frame, zap.NUMBER) or connection.after + 1)  # or nobody can tell
        if number <= connection.after or number < connection.number:
            return None
        self._known.pop(connection.identity, None)
        connection.identity, connection.number, connection.key = identity, number, _said(frame, "User-Id")
        self._known[identity] = connection
        return connection

    def give(self, connection: Connection, size: int) -> bool:
        """Count an answer that is about to be given to libzmq; False forbids it: the peer left too much unread."""
        connection.given += size
        if connection.given - connection.acked > LOOK_UNREAD:
            self._look_unread(connection)
        if not connection.unread or connection.unread <= self._room(connection) + limits.BODY_BYTES:
            return True
        connection.given -= size
        return False

    def is_full(self, connection: Connection, more: int) -> bool:
        """Tell whether so many more bytes of answers would be too many, beside what the peer has not read."""
        if not connection.unread:
            return False
        self._look_unread(connection)
        return connection.unread + more > self._room(connection)

    @staticmethod
    def ask_on(connection: Connection, size: int) -> bool:
        """Count a request of a connection that is full; tells whether it asked on for too long and read nothing."""
        if connection.acked != connection.asked_at:
            connection.asked_on, connection.asked_at = 0, connection.acked
        connection.asked_on += size
        return connection.asked_on > limits.ASKED_ON

    def _room(self, connection: Connection) -> int:
        """Count the bytes that one connection may leave unread: as many as all of its class have left."""
        which = self._classify(connection)
        return max(0, self._budgets[which].unread - self._unread[which])

    def _look_unread(self, connection: Connection) -> None:
        """Take in how much of what was given the peer has read."""
        counted = _counted(connection.descriptor)
        if counted is not None:
            before = connection.unread
            connection.acked = min(counted[0], connection.given)
            connection.unread = connection.given - connection.acked
            self._unread[self._classify(connection)] += connection.unread - before

    def look(self, now: float) -> bool:
        """Cut connections that hold more than their class may.

        Returns whether the process grows: then it had better be looked again sooner than in a tenth of a second.
        """
        self._unread = dict.fromkeys(self._budgets, 0)
        for connection in self._open.values():
            if connection.unread:
                self._unread[self._classify(connection)] += connection.unread
        if not self._open:
            return False
        size = _resident()
        grows = size - self._size >= GROWN
        if now < self._next_look and not grows:
            self._size = min(self._size, size)  # what is freed and taken again is growth too
            return False
        self._next_look, self._size = now + LOOK_AGAIN, size
        held: dict[T, dict[Connection, int]] = {}
        for connection in self._open.values():
            counted = _counted(connection.descriptor)
            if counted is None:
                continue
            connection.acked = min(counted[0], connection.given)
            connection.unread = connection.given - connection.acked
            connection.taken = min(connection.taken, counted[1])
            if connection.looked == connection.taken:
                held.setdefault(self._classify(connection), {})[connection] = counted[1] - connection.taken
            connection.looked = connection.taken
        for which, holders in held.items():
            for connection in overdrawn(holders, self._budgets[which].held):
                self._cut(connection, connection.taken + holders[connection])
        return grows

    def end(self, connection: Connection) -> None:
        """End a connection whose peer breaks the rules."""
        self._cut(connection, connection.taken)

    def _cut(self, connection: Connection, received: int) -> None:
        """End a connection under libzmq's hands, if its descriptor still belongs to it."""
        try:
            same = os.dup(connection.descriptor)
        except OSError:
            return
        with sockets.socket(fileno=same) as ends:
            counted = _counted(same)
            if counted is not None and counted[1] >= received:
                self.cut += 1
                try:
                    self.cut_last = str(ends.getpeername()[0])
                    ends.shutdown(sockets.SHUT_RDWR)
                except OSError:
                    return  # the peer was quicker

    def close(self) -> None:
        """End the monitor; call it before the socket is closed."""
        monitor.end(self._socket, self.monitor)


def _said(frame: zmq.Frame, name: str) -> str:
    """Read a property that the authenticator gave a message's connection; empty where there is none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def _counted(descriptor: int) -> tuple[int, int] | None:
    """Count the bytes that a connection's other machine acknowledged, and that came from it; None for a dead one."""
    try:
        looked = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM, sockets.IPPROTO_TCP, fileno=descriptor)
    except OSError:
        return None
    try:
        found = looked.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _COUNTED_AT + _COUNTED.size)
    except OSError:
        return None
    finally:
        looked.detach()
    if len(found) < _COUNTED_AT + _COUNTED.size:
        return None  # a kernel before 4.1
    return _COUNTED.unpack_from(found, _COUNTED_AT)


def _resident() -> int:
    """Count the bytes of memory that this process has."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE
