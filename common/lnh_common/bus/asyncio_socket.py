"""A plain ZeroMQ socket in an asyncio loop: every ready message is taken before the loop goes on.

`zmq.asyncio` makes a future for each message; at thousands of messages a second that is most of the work.
Here the socket's file descriptor wakes the loop and `receive` is called for each message. The descriptor is
edge-triggered (libzmq's ZMQ_FD): a send may swallow its signal, so what is readable is looked at after each one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import zmq

from lnh_common import limits
from lnh_common.bus import quick
from lnh_common.bus.connections import Connection, Connections, on_the_wire

_LOOK_EVERY: Final = 0.1  # seconds between two looks at connections, where there are any
_LOOK_IDLE: Final = 5.0  # ... and where there are none: the monitor tells of the first
_BURST: Final = 256  # messages taken before other tasks have their turn


class Pump:
    """Drives one socket from the running loop's thread; `receive` gets each message's frames and must not raise."""

    def __init__(self, socket: zmq.Socket[bytes], receive: Callable[[list[bytes]], None]) -> None:
        self._socket: Final = socket
        self._receive: Final = receive
        self._loop: Final = asyncio.get_running_loop()
        self._descriptor: Final = int(socket.getsockopt(zmq.FD))
        self._scheduled = False
        self._stopped = False
        self._loop.add_reader(self._descriptor, self.drain)
        self._again()

    def send(self, frames: list[bytes]) -> None:
        """Queue a message without waiting.

        Raises zmq.Again when the queue is full, and zmq.ZMQError (EHOSTUNREACH) for a ROUTER's peer that is gone.
        """
        try:
            quick.send(self._socket, frames)
        finally:
            if not self._scheduled and quick.is_ready(self._socket):
                self._again()

    def drain(self) -> None:
        """Receive the messages that are ready now; those beyond a burst wait until other tasks have had their turn."""
        self._scheduled = False
        if self._drain(_BURST):
            self._again()

    def drain_all(self) -> None:
        """Receive every message that is ready, because no more will come."""
        while self._drain(_BURST):
            pass

    def _drain(self, burst: int) -> bool:
        """Receive up to a burst of messages, and tell whether there may be more."""
        for _ in range(burst):
            if self._stopped or not quick.is_ready(self._socket):
                return False
            self._take()
        return True

    def _take(self) -> None:
        self._receive(quick.receive(self._socket))

    def stop(self) -> None:
        """Receive no more; closing the socket is left to the caller."""
        if not self._stopped:
            self._stopped = True
            self._loop.remove_reader(self._descriptor)

    def _again(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.drain)


class CurvePump(Pump):
    """Drives a CURVE server's socket; `receive_from` gets the connection of each message too.

    Messages of connections that are gone are thrown away, and peers that send too many frames are disconnected.

    Args:
        connections: of that socket. From here on they are watched, and looked at.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        connections: Connections[Any],
        receive_from: Callable[[list[bytes], Connection], None],
    ) -> None:
        self._connections: Final = connections
        self._receive_from: Final = receive_from
        super().__init__(socket, self._unasked)
        self._monitor: Final = int(connections.monitor.getsockopt(zmq.FD))
        self._loop.add_reader(self._monitor, self._watch)
        self._looking: asyncio.Handle = self._loop.call_soon(self._look)
        self._idle = False

    def _unasked(self, _: list[bytes]) -> None:
        """Take a message without a connection, which never comes."""

    def _take(self) -> None:
        identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        size = sum(on_the_wire(len(frame)) for frame in frames)
        connection = self._connections.take(identity.bytes, frames[0], size)
        self._look_soon()
        if connection is None:
            return
        if len(frames) > limits.FRAMES_TAKEN:
            self._connections.end(connection)
            return
        self._receive_from([identity.bytes, *(frame.bytes for frame in frames)], connection)

    def _watch(self) -> None:
        self._connections.watch()
        self._look_soon()

    def _look_soon(self) -> None:
        """Look at the connections from now on, if there was none."""
        if self._idle and self._connections:
            self._idle = False
            self._looking.cancel()
            self._looking = self._loop.call_later(_LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._connections.watch()  # its descriptor tells of changes alone
        self._connections.look(self._loop.time())
        self._idle = not self._connections
        self._looking = self._loop.call_later(_LOOK_IDLE if self._idle else _LOOK_EVERY, self._look)

    def stop(self) -> None:
        """Receive no more, and stop watching the connections."""
        if not self._stopped:
            self._loop.remove_reader(self._monitor)
            self._looking.cancel()
        super().stop()
