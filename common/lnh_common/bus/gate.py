"""The ZAP authenticator of an asyncio service: made before its CURVE servers, closed after them."""

from __future__ import annotations

from typing import Final

import zmq

from lnh_common.bus import zap
from lnh_common.bus.asyncio_socket import Pump


class Gate:
    """Admits peers to every CURVE server of one context, or refuses them. Made and used within a running loop.

    Args:
        decide: whether the holder of this key may connect; what it may ask is decided where its requests are served.

    Raises zmq.ZMQError when the context has a gate already.
    """

    def __init__(
        self, decide: zap.Decide = zap.everyone, context: zmq.Context[zmq.Socket[bytes]] | None = None
    ) -> None:
        self._decide: Final = decide
        self._socket: Final = zap.socket(context or zmq.Context.instance())
        self._pump: Final = Pump(self._socket, self._asked)

    def close(self) -> None:
        """Stop answering libzmq, and close the authenticator's socket."""
        self._pump.stop()
        self._socket.close(0)

    def _asked(self, frames: list[bytes]) -> None:
        self._pump.send(zap.answer(frames, self._decide))
