"""One connection to one endpoint: a socket, whether the other side is there, and its judge (`failover.Vigil`).

A member takes bundles, and answers each in bundles. One of version 0.1 drops them unread: it takes messages of three
frames, as every version does. So a line that has heard nothing yet asks for a sign of life in a bundle, then in three
frames; what answers the second alone is spoken to in three frames from then on, until it is connected anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import zmq

from lnh.net.failover import Endpoint, Vigil
from lnh_common import limits
from lnh_common.bus import curve, quick
from lnh_common.bus.dealer import Dealer
from lnh_common.errors import LnhError, MalformedMessage
from lnh_common.messages.base import Empty, Operation
from lnh_common.messages.session import HELLO, PROBE
from lnh_common.wire import bundles, codec, frames
from lnh_common.wire.bundles import Bundle, Entry
from lnh_common.wire.frames import Frames, Kind

Socket = zmq.Socket[bytes]

RECEIVE_SECONDS: Final = 0.1  # a receive blocks so long at most
_NO_REQUEST: Final = 0  # the id of what is asked for the line's own sake; requests begin at 1
_FRAMES: Final = 3
_PLAINLY_AFTER: Final = 0.1  # seconds that a probe in a bundle has no answer


class Line:
    """One connection, which comes and goes, until it is closed. One thread at a time.

    Args:
        on_change: called from within `watch` with True when the other side is there and False when it is gone.

    Attributes:
        dealer, socket: to send and receive by.
        vigil: judges the connection.
        takes_bundles: whether the member does; None until it has answered.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: curve.KeyPair,
        context: zmq.Context[Socket] | None,
        now: float,
        on_change: Callable[[Line, bool], None],
    ) -> None:
        socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = limits.HIGH_WATER_MARK
        socket.maxmsgsize = 2 * limits.BODY_BYTES
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 1000
        socket.tcp_keepalive = 1
        socket.rcvtimeo = int(RECEIVE_SECONDS * 1000)
        curve.connect(socket, curve.to_z85(endpoint.key), keys)
        self.endpoint: Final = endpoint
        self.socket: Final = socket
        self.vigil: Final = Vigil(now)
        self.takes_bundles: bool | None = None
        self._asked_plainly = False
        self.dealer: Final = Dealer(
            socket, f"tcp://{endpoint.address}", lambda up: on_change(self, up), refusals=True
        )  # its monitor is looked at in `watch`

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors that tell that messages came, and that something happened to the connection."""
        return int(self.socket.getsockopt(zmq.FD)), int(self.dealer.monitor.getsockopt(zmq.FD))

    def heed(self) -> bool:
        """Take in what the descriptors tell, so that they tell of what comes next; tell whether messages are left."""
        self.dealer.monitor.getsockopt(zmq.EVENTS)
        return bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def watch(self) -> str:
        """Take in what happened to the connection; returns why it cannot be had, or an empty text."""
        dealer = self.dealer
        dealer.watch()
        self.vigil.refused = not dealer.connected and (dealer.refused or bool(dealer.problem))
        return dealer.problem or ("nobody listens there" if dealer.refused else "")

    def described(self) -> str:
        """Put the state of the connection into words."""
        if self.dealer.connected:
            return "which is connected"
        problem = self.dealer.problem or ("nobody listens there" if self.dealer.refused else "no handshake yet")
        return f"which is not connected ({problem})"

    def down(self, now: float) -> None:
        """Note that the connection is gone; another version may be there when it comes back."""
        self.vigil.down(now)
        self.takes_bundles = None
        self._asked_plainly = False

    def probe(self, now: float) -> None:
        """Ask the balancer for a sign of life."""
        self.vigil.probed = now
        if self.takes_bundles is False:
            self._ask_plainly(PROBE)
        else:
            self._ask(PROBE)

    def doubt_bundles(self, now: float) -> None:
        """Ask once more, in three frames, where nothing has answered yet, and no probe in a bundle either."""
        waited = now - self.vigil.probed if self.vigil.probed else 0.0
        if self.takes_bundles is None and not self._asked_plainly and waited > _PLAINLY_AFTER:
            self._asked_plainly = True
            self._ask_plainly(PROBE)

    def greet(self) -> None:
        """Send a hello, which one of the member's hsm workers answers."""
        self._ask(HELLO)
        self._ask_plainly(HELLO)

    def take(self, flags: int) -> list[Entry]:
        """Receive one message; raises MalformedMessage for what no member sends."""
        frames = quick.receive(self.socket, flags)
        if len(frames) == _FRAMES:
            self.takes_bundles = self.takes_bundles or False
            return [Entry(b"", *frames)]
        found = bundles.unpack(frames)
        self.takes_bundles = True
        return found

    def receive(self) -> list[Entry]:
        """Receive every answer that has come."""
        found: list[Entry] = []
        with contextlib.suppress(zmq.Again):
            while True:
                with contextlib.suppress(MalformedMessage):
                    found += self.take(zmq.NOBLOCK)
        return found

    def close(self) -> None:
        """Close the socket."""
        self.dealer.close()

    def _ask(self, operation: Operation[Empty, Any]) -> None:
        bundle = Bundle()
        bundle.add(_NO_REQUEST.to_bytes(bundles.TAG_BYTES, "big"), *_asked(operation))
        self.dealer.send([bundle.take()])

    def _ask_plainly(self, operation: Operation[Empty, Any]) -> None:
        self.dealer.send(_asked(operation))


def _asked(operation: Operation[Empty, Any]) -> Frames:
    header = frames.request(operation.name, _NO_REQUEST, int(limits.DEADLINE * 1000))
    return [header.pack(), b"", codec.encode(Empty())]


def is_welcome(answer: Entry) -> bool:
    """Tell whether an answer is one to `greet`: a member that serves the cluster is there. It proves nothing more."""
    try:
        header = frames.Header.parse(answer.header)
    except LnhError:
        return False
    return header.request_id == _NO_REQUEST and header.operation == HELLO.name and header.kind is Kind.REPLY
