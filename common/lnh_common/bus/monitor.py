"""Begins, reads and ends the monitors of sockets.

libzmq's I/O thread waits for a monitor's reader when some 2000 events were not read, and every socket of that thread
waits with it. So a monitor is read for as long as it stands, whether or not there is a peer to talk to.

It waits for ever where the reading end is gone and the monitor still stands. Where an exception may come at any line (a
client's signal handler raises), Python may free the two in that order. So a monitor of `begin` has a reading end that
is there before it, takes any number of events, and is kept until `end`, even if its owner forgets it.

pyzmq's own parser of it lies beside its asyncio sockets, and to import those takes a command longer than its work does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import zmq

from lnh_common.bus import quick

Socket = zmq.Socket[bytes]

_EVENT: Final = struct.Struct("=Hi")  # zmq_socket_monitor(3)


class Happening(NamedTuple):
    """One event of a monitor (zmq.EVENT_*), with its number: a file descriptor or an error, by the event."""

    event: int
    value: int


_READERS: Final[dict[str, Socket]] = {}  # of the monitors that stand, by address


def begin(socket: Socket, events: int) -> Socket:
    """Have a socket tell of these events, and return the socket to read them from, until `end`."""
    address = f"inproc://monitor {os.urandom(16).hex()}"
    reader: Socket = socket.context.socket(zmq.PAIR)
    _READERS[address] = reader
    reader.linger = reader.rcvhwm = 0  # the second: without a bound
    reader.connect(address)
    socket.monitor(address, events)
    return reader


def parse(frames: Sequence[bytes]) -> Happening:
    """Decode one message of a monitor."""
    return Happening(*_EVENT.unpack(frames[0]))


def read(monitor: Socket) -> list[Happening]:
    """Read every event that a monitor has now."""
    found = []
    while quick.is_ready(monitor):
        found.append(parse(quick.receive(monitor)))
    return found


def end(socket: Socket, monitor: Socket) -> None:
    """End a socket's monitor before the socket is closed.

    Its last events are read first: ending a full monitor waits for the I/O thread, which waits for a reader.
    """
    if not monitor.closed:
        read(monitor)
    if not socket.closed:
        socket.disable_monitor()
    monitor.close(0)
    for address in [address for address, reader in list(_READERS.items()) if reader is monitor]:
        _READERS.pop(address, None)
