"""A small synchronous asker: one DEALER, one thread, one request at a time. For the local console and for tests.

An exception may come at any line of a call (Ctrl-C, a job's time limit). The connection is then no longer known to be
between two messages, and the next call makes another.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, TypeVar

import zmq
from typing_extensions import Self

from lnh_common import limits
from lnh_common.bus import asking, curve
from lnh_common.bus.dealer import Dealer
from lnh_common.bus.process import OwnProcess
from lnh_common.errors import ConnectionClosed, LnhError, Unreachable
from lnh_common.messages.base import Message, Operation
from lnh_common.wire import codec
from lnh_common.wire import frames as wire

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Caller:
    """Asks one peer from the thread that made it; a context manager.

    Args:
        address: ZeroMQ endpoint to connect to.
        server_key, keys: for CURVE, the peer's Z85 public key and our pair.
        reach: seconds to wait for a peer to take a request before it is Unreachable.
        name: of the peer, for people; without it errors show the address.
    """

    def __init__(
        self,
        address: str,
        *,
        server_key: bytes | None = None,
        keys: curve.KeyPair | None = None,
        reach: float = 3.0,
        name: str = "",
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.address: Final = address
        self._name: Final = name or address
        self._reach: Final = reach
        self._server_key: Final = server_key
        self._keys: Final = keys or (curve.KeyPair.generate() if server_key is not None else None)
        self._context: Final = context
        self._owner: Final = OwnProcess(f"a connection to {self._name}")
        self._last_id = 0
        self._closed = False
        self._in_a_call = False
        self._dealer = self._connect()

    def _connect(self) -> Dealer:
        socket = (self._context or zmq.Context.instance()).socket(zmq.DEALER)
        socket.linger = 0
        socket.reconnect_ivl = 20
        socket.maxmsgsize = 2 * limits.BODY_BYTES
        if self._server_key is not None and self._keys is not None:
            curve.connect(socket, self._server_key, self._keys)
        return Dealer(socket, self.address)

    def ask(self, operation: Operation[Q, R], message: Q, timeout: float = limits.DEADLINE) -> R:
        """Ask, and wait for the answer for `timeout` seconds.

        Raises what the peer answered, Unreachable, DeadlineExceeded, or OutcomeUnknown for an unanswered change;
        ConnectionClosed, also in a process that did not make this caller.
        """
        self._owner.check()
        if self._closed:
            raise ConnectionClosed("this connection was closed")
        if self._in_a_call:  # an earlier one was left in its midst
            self._dealer.close()
            self._dealer = self._connect()
        self._in_a_call = True
        try:
            reply = self._ask(operation, message, timeout)
        except LnhError:
            self._in_a_call = False
            raise
        self._in_a_call = False
        return reply

    def _ask(self, operation: Operation[Q, R], message: Q, timeout: float) -> R:
        end = time.monotonic() + timeout
        if not self._dealer.wait(min(timeout, self._reach)):
            raise Unreachable(f"nobody answers at {self._name}")
        self._last_id += 1
        left = max(1, int((end - time.monotonic()) * 1000))
        header = wire.request(operation.name, self._last_id, min(left, limits.MAX_DEADLINE_MS))
        frames = [header.pack(), b"", codec.encode(message)]
        wire.check_frames(frames)
        if not self._dealer.send(frames):
            raise Unreachable(f"{self.address} takes no more requests")
        body = self._answer(self._last_id, end)
        if body is None:
            why = f"{operation.name} was not answered within {timeout:g} s"
            raise asking.late(operation.effect, why)
        return codec.decode_as(body, operation.reply)

    def _answer(self, request_id: int, end: float) -> bytes | None:
        socket = self._dealer.socket
        while (left := end - time.monotonic()) > 0 and socket.poll(int(left * 1000) + 1):
            body = asking.answer_to(request_id, socket.recv_multipart())
            if body is not None:
                return body
        return None

    def close(self) -> None:
        """Close the socket."""
        self._closed = True
        self._dealer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
