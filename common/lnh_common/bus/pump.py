"""A plain ZeroMQ socket in an asyncio loop: every ready message is taken before the loop goes on.

`zmq.asyncio` makes a future for each message; at thousands of messages a second that is most of the work.
Here the socket's file descriptor wakes the loop and `receive` is called for each message. The descriptor is
edge-triggered (libzmq's ZMQ_FD): a send may swallow its signal, so what is readable is looked at after each one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

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
        """Queue a message; never waits. Raises zmq.Again when the queue is full,
        and zmq.ZMQError (EHOSTUNREACH) for a ROUTER's peer that is gone.
        """
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        finally:
            if not self._scheduled and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                self._again()

    def drain(self) -> None:
        """Take what is ready now; what is beyond a burst, when other tasks have had their turn."""
        self._scheduled = False
        if self._drain(_BURST):
            self._again()

    def drain_all(self) -> None:
        """Take all there is: it is the last that comes."""
        while self._drain(_BURST):
            pass

    def _drain(self, burst: int) -> bool:
        """Whether there may be more."""
        for _ in range(burst):
            if self._stopped:
                return False
            try:
                self._take()
            except zmq.Again:
                return False
        return True

    def _take(self) -> None:
        self._receive(self._socket.recv_multipart(zmq.NOBLOCK))

    def stop(self) -> None:
        """Receive no more; the socket is the caller's to close."""
        if not self._stopped:
            self._stopped = True
            self._loop.remove_reader(self._descriptor)

    def _again(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.drain)


class CurvePump(Pump):
    """Of a CURVE server: `receive_from` gets the sender's Z85 public key too, empty where no authenticator named it."""

    def __init__(self, socket: zmq.Socket[bytes], receive_from: Callable[[list[bytes], bytes], None]) -> None:
        self._receive_from: Final = receive_from
        super().__init__(socket, lambda frames: receive_from(frames, b""))

    def _take(self) -> None:
        frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        try:
            key = frames[0].get("User-Id")
        except zmq.ZMQError:
            key = ""
        self._receive_from([frame.bytes for frame in frames], str(key).encode())
