"""What a socket's monitor says.

pyzmq's own parser of it lies beside its asyncio sockets, and to import those takes a command longer than its work does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_EVENT: Final = struct.Struct("=Hi")  # zmq_socket_monitor(3)


class Happening(NamedTuple):
    """One of zmq.EVENT_*, and a number that depends on which: a file descriptor, an error."""

    event: int
    value: int


def parse(frames: Sequence[bytes]) -> Happening:
    """One message of a monitor."""
    return Happening(*_EVENT.unpack(frames[0]))
