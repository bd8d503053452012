"""What the local console asks of this member's store: the cluster's beginning and end, its users, an admin's reset."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import Busy, NameUnknown, NotPossible, VersionConflict
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import Role
from lnh_services.hsm import answers
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.state import Cluster, HsmState
from lnh_services.hsm.auth import credentials, online_attempts
from lnh_services.hsm.auth.console_attempts import KeptPassword
from lnh_services.hsm.cluster import create
from lnh_services.hsm.cluster.join import STATUS_SECONDS, STORE_SECONDS
from lnh_services.hsm.records import CLUSTER_RECORD, ClusterRecord, CredentialRecord, Records, UserRecord

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_USERS_SHOWN: Final = 4096
_FORGIVE_TRIES: Final = 16


class ClusterContents:
    """The cluster's contents in this member's store.

    Args:
        store_: ask this member's.
        clock: UTC seconds.
    """

    def __init__(self, store_: Asks, clock: Callable[[], float] = time.time) -> None:
        self._store: Final = store_
        self._clock: Final = clock

    async def ask(self, operation: Operation[Q, R], message: Q) -> R:
        """Ask the store; raises what it answers."""
        return await self._store.ask(operation, message, timeout=STORE_SECONDS)

    async def fetch(self, key: store.Key) -> store.Item | None:
        """Fetch one item; None where there is none."""
        return await answers.fetch(self._store, key, STORE_SECONDS)

    async def check_empty(self) -> None:
        """Raise NotPossible if the store holds the data of a cluster."""
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        if status.cluster:
            raise NotPossible(
                f"this member's store holds the data of another cluster ({status.cluster.hex()});"
                " re-imaging the appliance destroys it"
            )

    async def destroy(self) -> None:
        """Have the store destroy what it holds of a cluster."""
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        if status.cluster:
            await self.ask(store.DESTROY, store.Destroy(cluster=status.cluster))

    async def found(self, state: HsmState, member: store.MemberInfo, lease_ms: int) -> Cluster:
        """Bring the cluster into the store; what an earlier attempt brought there stays as it is.

        Args:
            state: of an HSM whose cluster is being created.
            member: this member, which the cluster begins with.
            lease_ms: how long members' leases last in it.
        """
        cluster = state.cluster
        assert cluster is not None, "a cluster that is being created"
        await self.ask(store.CREATE, store.Create(cluster=cluster.id, member=member))
        if lease_ms != limits.LEASE_MS:
            await self.ask(store.LEASE_SETTINGS, store.SetLeaseSettings(lease_ms=lease_ms))
        where = cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)
        item = await self.fetch(where)
        if item is None:
            await self.ask(store.COMMIT, create.first_commit(state, int(self._clock() * 1000)))
        else:
            cluster.records().read(ClusterRecord, item)
        return cluster

    async def _records(self, cluster: Cluster) -> Records:
        """Make the means to read and write records of the cluster's present instance."""
        item = await self.fetch(cluster.records().key_of(ClusterRecord, CLUSTER_RECORD))
        if item is None:
            raise NotPossible("this member's store does not hold the cluster's records yet: it has just joined")
        return cluster.records_of(item)

    async def users_of(self, cluster: Cluster) -> tuple[str, ...]:
        """List the cluster's users, as far as this member's store has them: none while a joining one is still empty."""
        try:
            records = await self._records(cluster)
        except NotPossible:
            return ()
        table = records.key_of(UserRecord, b"").table
        scan = store.Scan(table=table, limit=_USERS_SHOWN, body=True)
        found = await answers.fetch_page(self._store, scan, STORE_SECONDS)
        return tuple(sorted(records.read(UserRecord, item).name for item in found.items))

    async def reset_admin(self, cluster: Cluster, name: str, kept: KeptPassword) -> None:
        """Give an admin of the cluster a new password, and forget its failed logins.

        Raises NameUnknown; Busy where somebody goes on guessing.
        """
        records = await self._records(cluster)
        user_key = records.key_of(UserRecord, create.user_id(name))
        user = await self.fetch(user_key)
        if user is None:
            raise NameUnknown(f"no appliance user {name}")
        preconditions.check_is_admin(name, records.read(UserRecord, user).role)
        where = credentials.credential_id(Role.USER, name)
        old = await self.fetch(records.key_of(CredentialRecord, where))
        now = self._clock()
        new = credentials.new_record(
            kept.material(),
            role=Role.USER,
            smk=cluster.smk_of(records.generation),
            cluster=cluster.id,
            now=int(now),
            name=name,
        )
        changes: tuple[store.Change, ...] = (
            store.Require(key=user_key, version=user.version),
            records.put(new, where, old.version if old else 0),
        )
        await self._commit(cluster, records, changes)
        await self._forgive(cluster, records, name)

    async def _forgive(self, cluster: Cluster, records: Records, admin: str) -> None:
        """Forget every failed login of this admin."""
        scope = online_attempts.scope(records, Role.USER, admin, b"")
        for table in online_attempts.CLEARED:
            scan, tries = online_attempts.of_scope(table, scope), _FORGIVE_TRIES
            while True:
                found = await answers.fetch_page(self._store, scan, STORE_SECONDS)
                try:
                    if changes := online_attempts.clear(records, found.items):
                        await self._commit(cluster, records, tuple(changes))
                except VersionConflict:  # another attempt is under way
                    tries -= 1
                    if not tries:
                        raise Busy(
                            f"{admin}'s password is reset, its failures are not: somebody goes on guessing"
                        ) from None
                    continue
                if not found.more:
                    break
                scan = replace(scan, after=found.items[-1].key.id)

    async def _commit(self, cluster: Cluster, records: Records, changes: tuple[store.Change, ...]) -> None:
        commit = store.Commit(
            client=cluster.member,
            session=secrets.token_bytes(16),
            sequence=1,
            issued_at=int(self._clock() * 1000),
            changes=(records.fence(), *changes),
        )
        await self.ask(store.COMMIT, commit)
