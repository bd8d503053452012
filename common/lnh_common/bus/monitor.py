"""What a socket's monitor says, and how it is begun and ended.

libzmq's I/O thread waits for whoever reads a monitor when some 2000 events were not read, and every socket of that
thread waits with it. So a monitor is read for as long as it stands, whoever is there to talk to.

pyzmq's own parser of it lies beside its asyncio sockets, and to import those takes a command longer than its work does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import zmq

Socket = zmq.Socket[bytes]

_EVENT: Final = struct.Struct("=Hi")  # zmq_socket_monitor(3)


class Happening(NamedTuple):
    """One of zmq.EVENT_*, and a number that depends on which: a file descriptor, an error."""

    event: int
    value: int


def parse(frames: Sequence[bytes]) -> Happening:
    """One message of a monitor."""
    return Happening(*_EVENT.unpack(frames[0]))


def read(monitor: Socket) -> list[Happening]:
    """Take all that a monitor has to say now."""
    found = []
    try:
        while True:
            found.append(parse(monitor.recv_multipart(zmq.NOBLOCK)))
    except zmq.Again:
        return found


def end(socket: Socket, monitor: Socket) -> None:
    """End a socket's monitor before the socket is closed.

    What it still says is read first: to end one that is full waits for the I/O thread, which waits for a reader.
    """
    read(monitor)
    socket.disable_monitor()
    monitor.close(0)
