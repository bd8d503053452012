"""Founds a cluster anew that lost everything but an archive and this HSM's sealed state, at the local console.

The HSM holds the SMK and the cluster's identity; the store is empty. It is founded anew, of this one member under a new
id, and the archive is restored into it. Other members join as on the first day. Interrupted, the command is run again.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from lnh_common import limits
from lnh_common.errors import AlreadyDone, NoCluster, NotPossible
from lnh_common.messages import backup, console, store
from lnh_common.messages.base import Empty, Message
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.backup.archiving import Archiving
from lnh_services.hsm.backup.restore import Restoring
from lnh_services.hsm.cluster import create
from lnh_services.hsm.cluster.join import STATUS_SECONDS, STORE_SECONDS


class Here(Protocol):
    """The member as the cluster will list it, and how long leases will last."""

    @property
    def name(self) -> str:
        """The member's name."""

    @property
    def host(self) -> str:
        """The host that other members reach it at."""

    @property
    def port(self) -> int:
        """The base port of the member."""

    @property
    def key(self) -> Callable[[], bytes]:
        """Returns the CURVE key of its member ports, when called."""

    @property
    def lease_ms(self) -> int:
        """The length of leases, in milliseconds."""


class Refounding:
    """Founds the cluster anew, for one core.

    Args:
        store, backup_: ask this member's.
        here: of the member.
    """

    def __init__(
        self,
        vault: Vault,
        desk: Desk,
        archiving: Archiving,
        restoring: Restoring,
        *,
        store_: Asks,
        backup_: Asks,
        here: Here,
    ) -> None:
        self._vault: Final = vault
        self._desk: Final = desk
        self._archiving: Final = archiving
        self._restoring: Final = restoring
        self._store: Final = store_
        self._backup: Final = backup_
        self._here: Final = here

    def performers(self) -> dict[str, Callable[[Any], Awaitable[Message]]]:
        """Return the operations of the local console that are carried out here."""
        return {console.CLUSTER_RESTORE.name: self._restore, console.RESTORE_JOB.name: self._job}

    async def _restore(self, request: console.RestoreCluster) -> backup.JobView:
        await self._desk.authorise(request)
        await self._found(self._archiving.cluster())
        order = secrets.token_bytes(16)
        ticket = self._restoring.allow(order, request.name, check=False)
        passed = backup.RestoreOrder(id=order, name=request.name, check=False, ticket=ticket)
        return await self._backup.ask(backup.RESTORE_ARCHIVE, passed, timeout=STORE_SECONDS)

    async def _found(self, cluster: Cluster) -> None:
        """Have the store begin anew, unless it did and holds nothing yet."""
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        if status.cluster and status.cluster != cluster.id:
            raise NotPossible(f"this member's store holds the data of another cluster ({status.cluster.hex()})")
        if status.cluster:
            try:
                await self._archiving.records(cluster)
            except NoCluster:
                return
            raise AlreadyDone(
                "this member's store holds the cluster: an admin and the PO restore into it",
                {"advice": "lnh backup restore NAME, without --member-dir"},
            )
        member = self._vault.change(create.refounded).cluster
        assert member is not None, "a cluster that begins anew"
        here = self._here
        info = store.MemberInfo(id=member.member, name=here.name, host=here.host, port=here.port, key=here.key())
        await self._store.ask(store.CREATE, store.Create(cluster=cluster.id, member=info), timeout=STORE_SECONDS)
        if here.lease_ms != limits.LEASE_MS:
            await self._store.ask(
                store.LEASE_SETTINGS, store.SetLeaseSettings(lease_ms=here.lease_ms), timeout=STORE_SECONDS
            )

    async def _job(self, asked: backup.JobRef) -> backup.JobView:
        return await self._backup.ask(backup.ARCHIVE_JOB, asked, timeout=STATUS_SECONDS)
