"""The serving side of an asyncio service: one ROUTER, a handler an operation.

What a handler sees is already typed; what it raises as LnhError is the answer. Everything is bounded: requests in
flight (else Busy at once), time (the header's deadline), queues (a peer that does not read loses its answers, and
nobody else's).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import zmq

from lnh_common import limits
from lnh_common.bus import curve, intake
from lnh_common.bus.asyncio_socket import CurvePump, Pump
from lnh_common.bus.connections import Connection, Connections, on_the_wire
from lnh_common.errors import Busy, DeadlineExceeded, Internal, LnhError, OutcomeUnknown, UnknownOperation, Unreachable
from lnh_common.events import Log
from lnh_common.messages.base import Effect, Message, Operation
from lnh_common.rate import Rate
from lnh_common.wire import codec
from lnh_common.wire import frames as wire

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

LINGER_MS: Final = 1000


@dataclass(frozen=True)
class Call:
    """One request as its handler sees it.

    Args:
        identity: names the asking connection; good for `Server.cast` while it lasts.
        header: of the request.
        deadline: when the asker gives up, in the loop's time.
        key: the asker's CURVE public key (32 bytes); empty on a socket without CURVE or authenticator.
    """

    identity: bytes
    header: wire.Header
    deadline: float
    key: bytes = b""

    def remaining(self) -> float:
        """Count the seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()


OfPeer = Callable[[bytes], bool]


def _nobody(_: bytes) -> bool:
    """Know no key: every peer is a stranger."""
    return False


Handler = Callable[[Call, Q], Awaitable[R]]
CastHandler = Callable[[Call, Q], Awaitable[None]]


class Server:
    """Serves operations on one socket. Made and used within a running loop.

    Args:
        address: ZeroMQ endpoint to bind; ipc paths are made by the caller's MemberDirectory.
        name: for the log.
        in_flight: requests at once, over all askers.
        keys: serve CURVE with this key pair (admission is the ZAP authenticator's).
        knows: whether the holder of this key (32 bytes) is no stranger, under CURVE. Strangers have half of what may be
            in flight, and `limits.STRANGERS_AT_SERVICES` requests a second; requests beyond that are not looked at.
        max_message: bytes of one frame that libzmq accepts at all; a larger one disconnects the peer.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str,
        in_flight: int = limits.REQUESTS_IN_FLIGHT,
        keys: curve.KeyPair | None = None,
        knows: OfPeer = _nobody,
        max_message: int = 2 * limits.BODY_BYTES,
        ipv6: bool = False,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.address = address
        self.dropped: Final[Counter[str]] = Counter()  # messages lost without an answer, by reason
        self._log: Final = Log(name)
        self._in_flight: Final = in_flight
        self._handlers: dict[str, Handler[Any, Any]] = {}
        self._casts: dict[str, CastHandler[Any]] = {}
        self._served: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._loop: Final = asyncio.get_running_loop()
        socket = (context or zmq.Context.instance()).socket(zmq.ROUTER)
        socket.linger = LINGER_MS
        socket.sndhwm = socket.rcvhwm = limits.HIGH_WATER_MARK
        socket.router_mandatory = True
        socket.maxmsgsize = max_message
        socket.ipv6 = ipv6
        if keys is not None:
            curve.serve(socket, keys)
        self._socket: Final = socket
        self._knows: Final = knows
        self._strangers: Final = Rate(limits.STRANGERS_AT_SERVICES)
        self._connections: Final = (
            Connections(
                socket,
                {False: limits.STRANGERS, True: limits.PEERS},
                self._is_known,
                self._on_failed_handshake,
            )
            if keys is not None
            else None
        )
        self._pump: Pump | None = None

    def serve(self, operation: Operation[Q, R], handler: Handler[Q, R]) -> None:
        """Answer this operation with what `handler` returns."""
        self._handlers[operation.name] = handler
        self._served.add(operation.name)

    def on_cast(self, operation: Operation[Q, Any], handler: CastHandler[Q]) -> None:
        """Call `handler` for each cast of this operation."""
        self._casts[operation.name] = handler
        self._served.add(operation.name)

    def start(self) -> None:
        """Bind and begin to serve; enter the handlers first. Raises zmq.ZMQError when the address cannot be bound."""
        self._socket.bind(self.address)
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)  # a wildcard port is known now
        if self._connections is None:
            self._pump = Pump(self._socket, self._receive)
        else:
            self._pump = CurvePump(self._socket, self._connections, self._receive_from)

    def cast(self, identity: bytes, operation: Operation[Q, Any], message: Q) -> bool:
        """Send a message that wants no answer to one connection; False when it is gone or does not read."""
        header = wire.request(operation.name, 0, 0, kind=wire.Kind.CAST)
        return self._send([identity, header.pack(), b"", codec.encode(message)])

    @property
    def in_flight(self) -> int:
        """Count the requests and casts that are being served now."""
        return len(self._tasks)

    async def close(self, grace: float = 2.0) -> None:
        """Refuse new requests, let those in flight finish for `grace` seconds, cancel the rest, and close."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if self._pump is not None:
            self._pump.stop()
        if self._connections is not None:
            self._connections.close()
        self._socket.close()

    def _is_known(self, connection: Connection) -> bool:
        return bool(connection.key) and self._knows(curve.to_raw(connection.key.encode()))

    def _receive_from(self, frames: list[bytes], connection: Connection) -> None:
        if not self._is_known(connection):
            if not self._strangers.has(self._loop.time()) or len(self._tasks) >= self._in_flight // 2:
                self.dropped["over its budget"] += 1
                return
            self._strangers.spend(1)
        self._receive(frames, connection.key.encode())

    def _receive(self, frames: list[bytes], key: bytes = b"") -> None:
        identity = frames[0]
        taken = intake.read(frames[1:], self._served)
        if isinstance(taken, intake.Refused):
            self._log.debug("refused", error=type(taken.error).__name__)
            if taken.answer is None:
                self.dropped["malformed"] += 1
            else:
                self._send([identity, *taken.answer])
            return
        header = taken.header
        call = Call(identity, header, self._loop.time() + header.deadline_ms / 1000, curve.to_raw(key))
        if header.kind is wire.Kind.CAST:
            self._begin_cast(call, taken)
        else:
            self._begin(call, taken)

    def _on_failed_handshake(self, event: int) -> None:
        self.dropped["handshake"] += 1
        if self.dropped["handshake"].bit_count() == 1:  # at powers of two: seen, and never a flood
            problem = curve.explain(event)
            self._log.warning("handshakes failed", so_far=self.dropped["handshake"], problem=problem)

    def _begin(self, call: Call, taken: intake.Accepted) -> None:
        handler = self._handlers.get(call.header.operation)
        if handler is None:
            self._fail(call, UnknownOperation(f"{call.header.operation} is a cast; it is not answered"))
        elif self._closing:
            self._fail(call, Unreachable("this service is stopping"))
        elif call.header.deadline_ms == 0:
            self._fail(call, DeadlineExceeded("the deadline had passed when the request came"))
        elif len(self._tasks) >= self._in_flight:
            self._fail(call, Busy(f"{self._in_flight} requests are in flight, which is the limit"))
        else:
            task = self._loop.create_task(self._run(call, taken, handler))
            timer = self._loop.call_at(call.deadline, task.cancel)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: timer.cancel())

    async def _run(self, call: Call, taken: intake.Accepted, handler: Handler[Any, Any]) -> None:
        operation = taken.operation
        try:
            reply = await handler(call, taken.message)
            assert isinstance(reply, operation.reply), f"{operation.name} answered {type(reply).__name__}"
            answer = wire.reply_frames(call.header, codec.encode(reply))
        except LnhError as error:
            self._fail(call, error)
        except asyncio.CancelledError:
            # Its deadline, or the end of the grace at close; nothing else cancels these tasks.
            if operation.effect is Effect.WRITE:
                self._fail(call, OutcomeUnknown(f"{operation.name} had begun when its time was over"))
            else:
                self._fail(call, DeadlineExceeded(f"{operation.name} took longer than its deadline"))
        except Exception as error:  # a bug in a handler costs that request, not the service
            self._log.bug("handler failed", error, operation=operation.name)
            self._fail(call, Internal(f"{operation.name} failed inside the service"))
        else:
            self._send([call.identity, *answer])

    def _begin_cast(self, call: Call, taken: intake.Accepted) -> None:
        handler = self._casts.get(call.header.operation)
        if handler is None or self._closing or len(self._tasks) >= self._in_flight:
            self.dropped["cast"] += 1
            return
        task = self._loop.create_task(self._run_cast(call, taken, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_cast(self, call: Call, taken: intake.Accepted, handler: CastHandler[Any]) -> None:
        try:
            await handler(call, taken.message)
        except Exception as error:  # as for requests; nobody waits for an answer
            self._log.bug("cast failed", error, operation=call.header.operation)

    def _fail(self, call: Call, error: LnhError) -> None:
        self._send([call.identity, *wire.error_frames(call.header, error)])

    def _send(self, frames: list[bytes]) -> bool:
        if self._pump is None or self._socket.closed:
            return False
        if self._connections is not None and (connection := self._connections.of(frames[0])) is not None:
            size = sum(on_the_wire(len(frame)) for frame in frames[1:])
            if not self._connections.give(connection, size):
                self.dropped["peer does not read"] += 1
                return False
        try:
            self._pump.send(frames)
        except zmq.Again:
            self.dropped["peer does not read"] += 1
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.dropped["peer gone"] += 1
            return False
        return True
