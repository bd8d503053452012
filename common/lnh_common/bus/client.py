"""The asking side of an asyncio service: one DEALER, many requests in flight.

A request is handed to libzmq only while a peer is connected (`dealer.py`), so nothing stale is delivered after a
reconnection; until then it waits here, in a bounded queue. When the connection breaks, what was sent and not answered
fails at once: as Unreachable if it may be repeated, as OutcomeUnknown if it may have changed something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import zmq

from lnh_common import limits
from lnh_common.bus import asking, curve
from lnh_common.bus.asyncio_socket import Pump
from lnh_common.bus.dealer import Dealer
from lnh_common.errors import (
    Busy,
    ConnectionClosed,
    LnhError,
    MalformedMessage,
    Unreachable,
)
from lnh_common.events import Log
from lnh_common.messages.base import OPERATIONS, Effect, Message, Operation
from lnh_common.wire import codec
from lnh_common.wire import frames as wire

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

OnCast = Callable[[str, Message], None]
OnLink = Callable[[bool], None]

LINGER_MS: Final = 200


@dataclass
class _Waiting:
    """A request in flight; `sent` once it left this process."""

    operation: str
    effect: Effect
    frames: wire.Frames
    answer: asyncio.Future[tuple[wire.Header, bytes]]
    sent: bool = False


class Client:
    """Asks one peer. Made and used within a running loop.

    Args:
        address: ZeroMQ endpoint to connect to; the peer may come and go.
        in_flight: requests at once; one more is Busy.
        server_key, keys: for CURVE, the peer's public key and our pair.
        on_cast: called with operation name and message for each cast from the peer; must not raise.
        on_link: called with True and False as the connection comes and goes.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str = "client",
        in_flight: int = limits.REQUESTS_PER_CLIENT,
        server_key: bytes | None = None,
        keys: curve.KeyPair | None = None,
        on_cast: OnCast | None = None,
        on_link: OnLink | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.address: Final = address
        self._log: Final = Log(name)
        self._in_flight: Final = in_flight
        self._on_cast: Final = on_cast
        self._on_link: Final = on_link
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0
        self._closed = False
        self._loop: Final = asyncio.get_running_loop()
        socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        socket.linger = LINGER_MS
        socket.sndhwm = socket.rcvhwm = max(limits.HIGH_WATER_MARK, 2 * in_flight)
        socket.maxmsgsize = 2 * limits.BODY_BYTES
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 500
        if server_key is not None:
            curve.connect(socket, server_key, keys or curve.KeyPair.generate())
        self._dealer: Final = Dealer(socket, address, self._link)
        self._pump: Final = Pump(socket, self._receive)
        self._monitor_descriptor: Final = int(self._dealer.monitor.getsockopt(zmq.FD))
        self._loop.add_reader(self._monitor_descriptor, self._watch)
        self._looking: asyncio.TimerHandle | None = None
        self._loop.call_soon(self._watch)

    @property
    def connected(self) -> bool:
        """Tell whether the peer is there."""
        return self._dealer.connected

    # The timeout is an argument because it travels in the header.
    async def ask(self, operation: Operation[Q, R], message: Q, *, timeout: float = limits.DEADLINE) -> R:
        """Ask, and wait for the answer for `timeout` seconds.

        Raises what the peer answered; Busy when too much is in flight; Unreachable when no peer was there to take
        the request, or went away during one that changes nothing; DeadlineExceeded when no answer came to one that
        changes nothing; OutcomeUnknown when the peer or the time ran out on one that changes something.
        """
        milliseconds = min(max(1, int(timeout * 1000)), limits.MAX_DEADLINE_MS)
        header = wire.request(operation.name, self.next_id(), milliseconds)
        answer, body = await self.exchange(header, b"", codec.encode(message), operation.effect)
        if answer.kind is wire.Kind.ERROR:
            raise wire.parse_error(body)
        return codec.decode_as(body, operation.reply)

    def next_id(self) -> int:
        """Draw a request id that was not used before on this connection."""
        self._last_id += 1
        return self._last_id

    async def exchange(
        self, header: wire.Header, token: bytes, body: bytes, effect: Effect
    ) -> tuple[wire.Header, bytes]:
        """Send one request as it is and wait for the header and body of its answer, which may be an ERROR.

        The request id must come from `next_id`. Raises as `ask` does, except what the peer answered, and
        MalformedMessage for more than a message carries.
        """
        if self._closed:
            raise ConnectionClosed("this connection was closed")
        if len(self._waiting) >= self._in_flight:
            raise Busy(f"{self._in_flight} requests are in flight on this connection, which is the limit")
        assert header.request_id not in self._waiting, "a request id is used once"
        frames = [header.pack(), token, body]
        wire.check_frames(frames)
        waiting = _Waiting(header.operation, effect, frames, self._loop.create_future())
        self._watch()  # or what is sent before the loop hears of a broken connection is lost with it
        waiting.sent = self._send(frames)
        self._waiting[header.request_id] = waiting
        timer = self._loop.call_later(header.deadline_ms / 1000, self._expire, waiting)
        try:
            return await waiting.answer
        finally:
            timer.cancel()
            del self._waiting[header.request_id]

    def cast(self, operation: Operation[Q, Any], message: Q) -> bool:
        """Send a message that wants no answer; False when nobody is connected or the queue is full."""
        if self._closed:
            return False
        self._watch()
        header = wire.request(operation.name, 0, 0, kind=wire.Kind.CAST)
        return self._send([header.pack(), b"", codec.encode(message)])

    async def close(self) -> None:
        """Fail what is in flight and close the socket. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for waiting in list(self._waiting.values()):
            _fail(waiting, ConnectionClosed("this connection was closed"))
        if self._looking is not None:
            self._looking.cancel()
        self._pump.stop()
        self._loop.remove_reader(self._monitor_descriptor)
        self._dealer.close()

    def _send(self, frames: list[bytes]) -> bool:
        if not self._dealer.connected:
            return False
        try:
            self._pump.send(frames)
        except zmq.Again:
            return False
        return True

    def _receive(self, frames: list[bytes]) -> None:
        try:
            header, body = asking.read(frames)
        except LnhError as error:
            self._log.warning("malformed answer", peer=self.address, error=str(error))
            return
        if header.kind is wire.Kind.CAST:
            self._receive_cast(header, body)
            return
        waiting = self._waiting.get(header.request_id)
        if waiting is None or header.kind is wire.Kind.REQUEST:
            return  # an answer that came after its deadline
        if not waiting.answer.done():
            waiting.answer.set_result((header, body))

    def _receive_cast(self, header: wire.Header, body: bytes) -> None:
        operation = OPERATIONS.get(header.operation)
        if operation is None or self._on_cast is None:
            return
        try:
            message = codec.decode_as(body, operation.request)
        except MalformedMessage as error:
            self._log.warning("malformed cast", peer=self.address, operation=header.operation, error=str(error))
            return
        self._on_cast(header.operation, message)

    def _watch(self) -> None:
        if self._closed:
            return
        before = self._dealer.problem
        self._dealer.watch()
        if self._dealer.problem and self._dealer.problem != before:
            self._log.warning("handshake failed", peer=self.address, problem=self._dealer.problem)
        within = self._dealer.looks_in
        if within is not None and self._looking is None:
            self._looking = self._loop.call_later(within, self._look)

    def _look(self) -> None:
        """Look up the new address of a peer that is named, and try a peer again that refused."""
        self._looking = None
        self._watch()

    def _link(self, up: bool) -> None:
        self._pump.drain_all()  # what came before the connection broke still counts
        if up:
            for waiting in self._waiting.values():
                if not waiting.sent and not waiting.answer.done():  # else its asker was told that it never left
                    waiting.sent = self._send(waiting.frames)
        else:
            for waiting in self._waiting.values():
                if waiting.sent:
                    _fail(waiting, asking.lost(waiting.effect, f"{self.address} closed the connection"))
        if self._on_link is not None:
            self._on_link(up)

    def _expire(self, waiting: _Waiting) -> None:
        if not waiting.sent:
            problem = f": {self._dealer.problem}" if self._dealer.problem else ""
            _fail(waiting, Unreachable(f"nobody answers at {self.address}{problem}"))
        else:
            _fail(waiting, asking.late(waiting.effect, f"{waiting.operation} was not answered in time"))


def _fail(waiting: _Waiting, error: LnhError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
