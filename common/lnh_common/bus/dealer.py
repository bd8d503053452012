"""A DEALER to one peer that knows whether the peer is there.

Frames are handed to libzmq only while the connection stands, which the socket's monitor tells. What could not be handed
over stays the caller's, and what was handed over and had not left when the connection broke is thrown away: nothing
stale reaches the peer after it came back.

A peer that refused the handshake is tried again every second, which libzmq does not do: it may hear of this key later.

A peer that is named, not numbered, is looked up here (`resolver.py`), again and again for as long as it is not there:
it may come back with another address. And a connection over TCP whose other machine is silent is given up after
seconds, not after the quarter of an hour that a kernel takes.

ZMQ_IMMEDIATE promises what the first paragraph does and is not used: with it, libzmq 4.3.5 ends a pipe that its socket
is in the midst of reading a message from, and aborts the process (fq.cpp, `!_more`) when the peer dies with many
messages on the way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import zmq

from lnh_common.bus import curve, monitor, quick
from lnh_common.bus.process import OwnProcess
from lnh_common.bus.resolver import NAMES, endpoint, is_numeric

LOOK_EVERY: Final = 0.25  # seconds between calls of `watch` while a peer that is `named` is not there
_NEVER: Final = float("inf")
_SILENT_MS: Final = 3000  # not acknowledged for so long, a connection is made anew
_CONNECT_MS: Final = 2000


def _ignore(_: bool) -> None:
    """Take news that an owner does not want, because it asks for `connected` only."""


class Dealer:
    """One connection to `address`, which comes and goes. One thread at a time.

    Args:
        socket: a DEALER with its options set, not yet connected; from here on this object's.
        on_change: is told True when the peer is there and False when it is gone, from within `watch`; then what it had
            sent can be received for the last time.
        refusals: whether to note in `refused` that nobody listens there.

    Attributes:
        connected: as of the last `watch`.
        refused: whether an attempt to connect failed since the connection last stood.
        problem: why the last handshake failed, or empty.
        named: whether the address has a host's name, so that `watch` is to be called now and then.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        address: str,
        on_change: Callable[[bool], None] | None = None,
        *,
        refusals: bool = False,
    ) -> None:
        self.socket: Final = socket
        self.address: Final = address
        self.connected = self.refused = False
        self.problem = ""
        self._on_change: Final = on_change or _ignore
        self._owner: Final = OwnProcess("a socket")
        self.monitor: Final = monitor.begin(socket, curve.LINK_EVENTS | (zmq.EVENT_CLOSED if refusals else 0))
        self._host, self._port = _parse(address)
        self.named: Final = bool(self._host) and not is_numeric(self._host)
        self._at = ""  # the endpoint that libzmq was told
        self._again_at = _NEVER
        if self._host:
            _give_up_early(socket)
        if self.named:
            self._find()
        else:
            self._connect(address)

    def watch(self) -> None:
        """Take in what happened to the connection; to be called between messages, not within one."""
        events = [said.event for said in monitor.read(self.monitor)]
        for number, event in enumerate(events):
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.problem = ""
                self.refused = False
                self._again_at = _NEVER
                if not self.connected:  # else libzmq's own attempt had got there too, just before it was discarded
                    self.connected = True
                    self._on_change(True)
            elif event == zmq.EVENT_CLOSED:
                self.refused = not self.connected
            elif event != zmq.EVENT_DISCONNECTED:
                self.problem = curve.explain(event)
                if event & curve.REFUSED_EVENTS:
                    self._again_at = time.monotonic() + curve.REFUSED_AGAIN
            elif self.connected:
                self.connected = False
                self._on_change(False)
                if zmq.EVENT_HANDSHAKE_SUCCEEDED not in events[number:] and not self.connected:  # not back already
                    self._discard()
        if self.named and not self.connected:
            self._find()
        if self._again_at != _NEVER and time.monotonic() >= self._again_at:
            self._again_at = _NEVER
            self._discard()

    @property
    def looks_in(self) -> float | None:
        """Tell within how many seconds `watch` must be called though nothing happened; None: it need not be."""
        if self._again_at == _NEVER:
            return LOOK_EVERY if self.named else None
        return min(max(0.0, self._again_at - time.monotonic()), LOOK_EVERY)

    def wait(self, seconds: float) -> bool:
        """Wait at most so many seconds for the peer, and tell whether it is there."""
        end = time.monotonic() + seconds
        self.watch()
        while not self.connected and (left := end - time.monotonic()) > 0:
            within = self.looks_in
            self.monitor.poll(int(min(left, left if within is None else within) * 1000) + 1)
            self.watch()
        return self.connected

    def send(self, frames: list[bytes]) -> bool:
        """Hand a message over; False when nobody is there or the queue is full: the caller keeps the message then."""
        if not self.connected:
            return False
        try:
            quick.send(self.socket, frames)
        except zmq.Again:
            return False
        return True

    def renew(self) -> None:
        """Give the connection up, with all that is under way on it, and connect anew."""
        if self.connected:
            self.connected = False
            self._on_change(False)
        self._discard()

    def _discard(self) -> None:
        """Connect anew, without the messages that libzmq kept for the peer."""
        if self._at:
            self._connect(self._at)

    def _find(self) -> None:
        """Connect to the address that the peer's name has now."""
        address = NAMES.address(self._host)
        if address is not None and (at := endpoint(address, self._port)) != self._at:
            self._connect(at)

    def _connect(self, at: str) -> None:
        if self._at:
            linger, self.socket.linger = self.socket.linger, 0
            self.socket.disconnect(self._at)
            self.socket.linger = linger
        self.socket.ipv6 = "[" in at
        self.socket.connect(at)
        self._at = at

    def close(self) -> None:
        """Close the socket, which still sends for its linger.

        A second call changes nothing, and a forked child only forgets the socket.
        """
        if self._owner.is_here:
            monitor.end(self.socket, self.monitor)
            self.socket.close()

    def __del__(self) -> None:
        # Of one whose owner was interrupted before it could close it.
        if hasattr(self, "monitor") and not self.socket.closed and not sys.is_finalizing():
            self.close()


def _parse(address: str) -> tuple[str, str]:
    """Split an endpoint over TCP into host and port; two empty words stand for another kind of endpoint."""
    transport, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    return (host, port) if transport == "tcp" else ("", "")


def _give_up_early(socket: zmq.Socket[bytes]) -> None:
    """Set the time-outs of TCP that the socket's owner has not set."""
    if socket.getsockopt(zmq.TCP_MAXRT) == 0:
        socket.setsockopt(zmq.TCP_MAXRT, _SILENT_MS)
    if socket.connect_timeout == 0:
        socket.connect_timeout = _CONNECT_MS
    if socket.tcp_keepalive_idle == -1:  # for one that has nothing to say, so that nothing can be unacknowledged
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 5, 2, 3
