"""Asks who a cluster is at a member's door, as `lnh.registration` does, and connects guests."""

from __future__ import annotations

import asyncio

from lnh.aio.net.connection import Connection, Link
from lnh.net.unserved import UNSERVED, unserved
from lnh.registration import DOOR_OFFSET, PAUSE, SETTLING, Confirm, Greeting, parse_address
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.client import Client
from lnh_common.errors import Busy, NoCluster, Unreachable
from lnh_common.messages.base import Empty
from lnh_common.messages.session import HELLO, Welcome
from lnh_common.wire.channel import Statement


async def hello(address: str, timeout: float = limits.DEADLINE) -> Greeting:
    """Ask at the door of the member that has this client port.

    Raises Unreachable, ChannelInvalid when the identity it names did not sign, and NotActivated, NoCluster or
    MemberExpelled of a member that serves nobody.
    """
    host, port = parse_address(address)
    door = Client(f"tcp://{host}:{port + DOOR_OFFSET}", server_key=curve.DOOR.public)
    try:
        welcome = await _ask(door, timeout)
    except UNSERVED as error:
        raise unserved(error, {address: error}, is_sealed=False) from None
    except Unreachable:
        raise Unreachable(f"nobody answers at {address} (its door is port {port + DOOR_OFFSET})") from None
    finally:
        await door.close()
    statement = Statement.verify(welcome.statement, welcome.signature, welcome.identity)
    return Greeting(address, statement, welcome.identity)


async def _ask(door: Client, timeout: float) -> Welcome:
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    settled = end - timeout + min(timeout, SETTLING)
    while True:
        now = loop.time()
        try:
            return await door.ask(HELLO, Empty(), timeout=max(end - now, 0.001))
        except (Busy, NoCluster, Unreachable) as error:  # a member's workers may be starting just now
            if now + PAUSE >= (settled if isinstance(error, NoCluster) else end):
                raise
            await asyncio.sleep(PAUSE)


async def connect_as_guest(
    address: str, wanted: str | None = None, confirm: Confirm | None = None, *, timeout: float = limits.DEADLINE
) -> Connection:
    """Connect from a machine that is not registered, to act as an appliance user.

    Raises FingerprintMismatch, Unreachable.
    """
    greeting = await hello(address, timeout)
    greeting.check(wanted, confirm)
    link = Link(address, curve.to_z85(greeting.statement.member_key), curve.KeyPair.generate())
    return Connection(link, greeting.identity, greeting.statement.cluster)
