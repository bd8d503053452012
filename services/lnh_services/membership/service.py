"""Gives everyone in this member the view of the cluster, and asks its services how they are. One member for now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import lnh_common
from lnh_common.bus.client import Client
from lnh_common.bus.server import Call, Server
from lnh_common.errors import LnhError
from lnh_common.events import Log
from lnh_common.messages import backup, balancer, console, membership, store
from lnh_common.messages.base import Empty, Operation
from lnh_services.paths import MemberDirectory
from lnh_services.serving import Member

_LOOK_EVERY: Final = 2.0  # seconds
LOCAL_GROUP: Final = "local"

_log: Final = Log("membership")


@dataclass(frozen=True)
class Asked:
    """A service this one asks how it is."""

    name: str
    status: Operation[Empty, Any]
    address: Callable[[MemberDirectory], str]


STORE: Final = Asked("store", store.STATUS, lambda directory: directory.store_for_services)
OTHERS: Final = (
    Asked("hsm", console.HSM_SHOW, lambda directory: directory.hsm_for_services),
    Asked("balancer", balancer.STATUS, lambda directory: directory.balancer_status),
    Asked("backup", backup.STATUS, lambda directory: directory.backup_for_services),
)


class Membership:
    """Made and used within a running loop."""

    def __init__(self, member: Member) -> None:
        self._settings: Final = member.settings
        self._timeout: Final = member.settings.timeouts.status / 1000
        directory = member.directory
        self._server: Final = Server(directory.membership_for_services, name="membership")
        self._server.serve(membership.STATUS, self._status)
        self._clients: Final = {
            asked.name: Client(asked.address(directory), name=f"membership.{asked.name}") for asked in (STORE, *OTHERS)
        }
        self._health: dict[str, membership.ServiceHealth] = {}

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self._server.start()
        looking = [asyncio.create_task(self._look(asked)) for asked in OTHERS]
        try:
            await stop.wait()
        finally:
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
            await self._server.close()
            for client in self._clients.values():
                await client.close()

    async def _look(self, asked: Asked) -> None:
        while True:
            await self._ask(asked)
            await asyncio.sleep(_LOOK_EVERY)

    async def _ask(self, asked: Asked) -> Any:
        """One service's status, or None; what it says of the service's health is kept."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer, problem = None, ""
        try:
            answer = await self._clients[asked.name].ask(asked.status, Empty(), timeout=self._timeout)
        except LnhError as error:
            problem = str(error)
        state = "serving" if answer is not None else "unreachable"
        before = self._health.get(asked.name)
        if before is None or before.state != state:
            _log.info("service health", service=asked.name, state=state, problem=problem)
        self._health[asked.name] = membership.ServiceHealth(
            name=asked.name, state=state, milliseconds=int(1000 * (loop.time() - begun)), problem=problem
        )
        return answer

    async def _status(self, call: Call, request: Empty) -> membership.View:
        answer: store.Status | None = await self._ask(STORE)
        return view(self._settings.name, f"{self._settings.host}:{self._settings.client_port}", answer, self._health)


def view(
    name: str, address: str, answer: store.Status | None, health: dict[str, membership.ServiceHealth]
) -> membership.View:
    """The cluster as one member's store tells it; None is a store that does not answer."""
    role = "none"
    if answer is not None and answer.cluster:
        role = "primary" if answer.primary == answer.member else "secondary"
    this = membership.MemberState(
        id=answer.member if answer is not None else b"",
        name=name,
        address=address,
        role=role,
        state=answer.state if answer is not None else "unreachable",
        group=LOCAL_GROUP,
        product=lnh_common.VERSION,
    )
    return membership.View(
        cluster=answer.cluster if answer is not None else b"",
        primary=answer.primary if answer is not None else b"",
        epoch=answer.epoch if answer is not None else 0,
        members=(this,),
        services=tuple(health[service] for service in sorted(health)),
    )
