"""Connects to the other members' membership services, and asks each how it is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import lnh_common
from lnh_common.bus import curve
from lnh_common.bus.client import Client
from lnh_common.errors import LnhError, PermissionDenied
from lnh_common.events import Log
from lnh_common.messages import membership as messages
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.overview import PEER_FIGURES, Figures
from lnh_common.messages.store import MemberInfo, Status
from lnh_services.membership.procedures import membership_of
from lnh_services.membership.steps import There
from lnh_services.membership.view import Heard

_log: Final = Log("membership.peers")

Keys = Callable[[], curve.KeyPair]


def endpoint(there: There) -> str:
    """Make the ZeroMQ endpoint to connect to."""
    return f"tcp://[{there.host}]:{there.port}" if ":" in there.host else f"tcp://{there.host}:{there.port}"


class PeerMemberships:
    """Connections to the other members. Made and used within a running loop.

    Args:
        keys: this member's CURVE key, as it is now.
        timeout: seconds a peer may take to say how it is.
    """

    def __init__(self, keys: Keys, timeout: float) -> None:
        self.heard: Final[dict[bytes, Heard]] = {}
        self._keys: Final = keys
        self._timeout: Final = timeout
        self._clients: Final[dict[There, Client]] = {}

    def products(self) -> tuple[str, ...]:
        """Return the versions of the other members, as far as they were heard."""
        return tuple(heard.health.product for heard in self.heard.values())

    async def follow(self, status: Status) -> messages.Welcome | None:
        """Ask every other listed member how it is; returns the welcome of one that says this member was removed.

        Connections to members that are none any more are closed.
        """
        others = [each for each in status.members if each.id != status.member]
        for there in set(self._clients) - {membership_of(each) for each in others}:
            await self._clients.pop(there).close()
        for gone in set(self.heard) - {each.id for each in others}:
            del self.heard[gone]
        answers = await asyncio.gather(*(self._ask_one(each, status) for each in others))
        return next((answer for answer in answers if answer is not None), None)

    async def _ask_one(self, member: MemberInfo, status: Status) -> messages.Welcome | None:
        client = self._client(membership_of(member))
        try:
            health = await client.ask(messages.PEER_HEALTH, Empty(), timeout=self._timeout)
        except PermissionDenied:
            return await self._removed_by(client, status)
        except LnhError as error:
            _log.debug("no word", member=member.name, problem=str(error))
            return None
        if health.member == member.id and health.cluster == status.cluster:
            self.heard[member.id] = Heard(health, time.time())
        return None

    async def _removed_by(self, client: Client, status: Status) -> messages.Welcome | None:
        """Ask a listed peer why it does not know this member: it was removed, or the peer has not heard of it yet."""
        hello = messages.Hello(cluster=status.cluster, member=status.member, product=lnh_common.VERSION)
        try:
            welcome = await client.ask(messages.PEER_HELLO, hello, timeout=self._timeout)
        except LnhError:
            return None
        tells = welcome.removed is not None or bool(welcome.proof)
        return welcome if tells and welcome.cluster == status.cluster else None

    async def figures(self, members: Iterable[MemberInfo]) -> tuple[dict[bytes, Figures], dict[bytes, int]]:
        """Ask these members for their figures.

        Returns them, and how many milliseconds each one's clock is ahead of ours.
        """
        told: dict[bytes, Figures] = {}
        skews: dict[bytes, int] = {}

        async def ask(member: MemberInfo) -> None:
            asked_at = time.time()
            with contextlib.suppress(LnhError):  # one that does not answer, or is of a version that cannot
                client = self._client(membership_of(member))
                answer = await client.ask(PEER_FIGURES, Empty(), timeout=self._timeout)
                told[member.id] = answer
                skews[member.id] = answer.told_at - int(500 * (asked_at + time.time()))

        await asyncio.gather(*(ask(member) for member in members))
        return told, skews

    async def hello(self, members: Iterable[MemberInfo], status: Status) -> list[messages.Welcome]:
        """Say hello to these members; returns the welcomes of those that know of this member's removal."""
        return [
            welcome
            for member in members
            if member.id != status.member
            and (welcome := await self._removed_by(self._client(membership_of(member)), status)) is not None
        ]

    async def ask(self, there: There, operation: Operation[Any, Any], message: Message, timeout: float) -> Message:
        """Ask a member, or one that is to become ours; raises what it answers, Unreachable."""
        known = self._clients.get(there)
        if known is not None:
            return await known.ask(operation, message, timeout=timeout)
        client = self._connect(there)
        try:
            return await client.ask(operation, message, timeout=timeout)
        finally:
            await client.close()

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def _client(self, there: There) -> Client:
        if there not in self._clients:
            self._clients[there] = self._connect(there)
        return self._clients[there]

    def _connect(self, there: There) -> Client:
        return Client(endpoint(there), name="membership.peer", server_key=curve.to_z85(there.key), keys=self._keys())
