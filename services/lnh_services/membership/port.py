"""Opens the member port while this member is in a cluster, under the key it has in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import zmq

from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.server import Server
from lnh_common.errors import ConfigurationInvalid
from lnh_common.events import Log
from lnh_services.configuration import Settings

_REQUESTS: Final = 256
_MESSAGE_BYTES: Final = 256 * limits.KIB

_log: Final = Log("membership.port")


class MemberPort:
    """The member port. Made and used within a running loop, in which a `Gate` is open.

    Args:
        enter: enters the handlers of a new server.
        knows: whether a key (32 bytes) is that of a member.
    """

    def __init__(self, settings: Settings, enter: Callable[[Server], None], knows: Callable[[bytes], bool]) -> None:
        self._knows: Final = knows
        self._settings: Final = settings
        self._enter: Final = enter
        self._server: Server | None = None
        self._key = b""

    async def open(self, keys: curve.KeyPair) -> None:
        """Serve under this key; a second call changes nothing. Raises ConfigurationInvalid when the port is taken."""
        if self._server is not None and self._key == keys.public:
            return
        await self.close()
        port = self._settings.membership_port
        server = Server(
            self._settings.endpoint(port),
            name="membership.members",
            keys=keys,
            knows=self._knows,
            in_flight=_REQUESTS,
            max_message=_MESSAGE_BYTES,
            ipv6=":" in self._settings.listen,
        )
        self._enter(server)
        try:
            server.start()
        except zmq.ZMQError as error:
            await server.close(0)
            raise ConfigurationInvalid(f"port {port} of {self._settings.listen}: {error}") from None
        self._server, self._key = server, keys.public
        _log.info("member port open", port=port)

    async def close(self) -> None:
        """Stop serving."""
        server, self._server = self._server, None
        if server is not None:
            await server.close(0.2)
            _log.info("member port closed")
