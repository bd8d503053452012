"""Keeps this HSM's SMK that of the cluster: takes generations that are shared, and on the primary finishes a rollover.

`smk_generations.py` says what is due; here it is read, committed and noted. Each step is one commit whose guards are
the versions that it rests on, and nothing is remembered between two looks: so whatever process ends, the next look, of
this HSM or another primary's, goes on from what is stored.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh_common.errors import Busy, LnhError, MemberBehind, MemberReadOnly, NoCluster, VersionConflict
from lnh_common.events import Log
from lnh_common.messages import smk, store
from lnh_common.messages.base import Empty
from lnh_services.hsm import answers
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Cluster, HsmState, Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.cluster import smk_generations
from lnh_services.hsm.cluster.join import STATUS_SECONDS, STORE_SECONDS
from lnh_services.hsm.cluster.smk_generations import KEY, Shared, Step
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.records import CLUSTER_RECORD, RECORD_TABLES, TABLES, ClusterRecord, HsmRecord, Records

RESTS_ON: Final = frozenset({KEY.table, TABLES[ClusterRecord], TABLES[HsmRecord], store.MEMBERS.table})
SEALED_AT_ONCE: Final = 32  # records, in one commit
_TRIES: Final = 16  # for records that change meanwhile
_MEMBERS_AT_ONCE: Final = 1024

_log: Final = Log("hsm.smk")


async def fetch_shared(store_: Asks, cluster: Cluster) -> tuple[Shared | None, int]:
    """Read what the cluster's HSMs share of the SMK, and its version; None before the first rollover.

    Raises what the store answers; SealBroken.
    """
    item = await answers.fetch(store_, KEY, STORE_SECONDS)
    if item is None:
        return None, 0
    public = Ed25519PrivateKey.from_private_bytes(cluster.identity).public_key()
    return smk_generations.read(item, cluster.id, public), item.version


class _Now(NamedTuple):
    """What an order finds.

    Args:
        version: of the item that has `shared`.
        known: the HSMs that have introduced themselves.
        listed: the members.
    """

    cluster: Cluster
    records: Records
    shared: Shared | None
    version: int
    known: Sequence[HsmRecord]
    listed: Sequence[bytes]


class SmkKeeper:
    """Keeps the generations of the SMK of one core.

    Args:
        store_: asks this member's.
        desk: writes the audit trail.
        introduce: writes into the replicated state what this HSM holds by now.
        clock: UTC seconds.
    """

    def __init__(
        self,
        vault: Vault,
        store_: Asks,
        desk: Desk,
        *,
        introduce: Callable[[], Awaitable[object]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault: Final = vault
        self._store: Final = store_
        self._desk: Final = desk
        self._introduce: Final = introduce
        self._clock: Final = clock
        self._turn: Final = asyncio.Lock()

    async def keep(self) -> bool:
        """Look once, and do what is due.

        Returns whether nothing is left to be done until `RESTS_ON` changes.
        Raises what the store answers, SealBroken.
        """
        if self._cluster() is None:
            return False
        status = await self._status()
        if status is None:
            return False
        shared, version = await self.take()
        cluster = self._cluster()
        if cluster is None or status.state != "read-write":
            return False
        if status.primary != cluster.member or (shared is None and len(cluster.smk) == 1):
            return True
        records = await self._records(cluster)
        if records is None:
            return False
        known, listed = await self._known(records), [each.id for each in status.members]
        step = smk_generations.due(shared, cluster, known, listed, status.in_sync, records)
        if step is Step.SHARE:
            recipients = [each for each in known if each.member in listed]
            await self._share(cluster, records, shared, version, recipients)
        elif shared is not None and step is Step.USE:
            await self._use(records, shared, version)
        elif shared is not None and step is Step.SEAL and await self._seal_anew(cluster, records):
            whole = msgspec.structs.replace(shared, whole=records.instance)
            if await self._commit(cluster, records, smk_generations.put(whole, version, cluster.identity)):
                self._note(shared.newest, "everything is sealed under it")
        return step is Step.NOTHING

    async def take(self) -> tuple[Shared | None, int]:
        """Hold the generations that are shared; returns what is shared, and its version.

        Raises what the store answers; SealBroken.
        """
        cluster = self._member_of()
        shared, version = await fetch_shared(self._store, cluster)
        if shared is None:
            return None, 0
        before, identity = cluster.smk, self._vault.opened.identity
        if smk_generations.take(shared, cluster, identity) is not cluster:
            after = self._vault.change(lambda state: _taken(state, shared)).cluster
            held = after.smk if after is not None else ()
            for each in held:
                if each not in before:
                    self._note(each.generation, "taken")
            for each in before:
                if each not in held:
                    self._note(each.generation, "dropped")
            await self._introduce()
        return shared, version

    # --- the orders

    async def roll_over(self, order: smk.OrderSmk) -> smk.SmkOrdered:
        """Draw another generation, and share it; the same order that comes again does nothing.

        Raises NotPossible, LimitReached, MemberReadOnly, MemberBehind, Busy.
        """
        key = secrets.token_bytes(KEY_BYTES)

        def ordered(now: _Now) -> Shared:
            return smk_generations.rolled_over(
                now.shared, now.cluster, now.known, now.listed, now.records.instance, key, order.id, int(self._clock())
            )

        return await self._order(order, ordered)

    async def retire(self, order: smk.OrderSmk) -> smk.SmkOrdered:
        """Retire every generation but the newest; the same order that comes again does nothing.

        Raises NotPossible, MemberReadOnly, MemberBehind, Busy.
        """

        def ordered(now: _Now) -> Shared:
            confirmed = {each.member: each.smk for each in now.known}
            return smk_generations.retired(
                now.shared, now.cluster, confirmed, now.listed, now.records.instance, order.id, order.newest
            )

        return await self._order(order, ordered)

    async def _order(self, order: smk.OrderSmk, ordered: Callable[[_Now], Shared]) -> smk.SmkOrdered:
        """Share what `ordered` makes of what there is, unless this order did already."""
        async with self._turn:  # a worker that hears nothing for a while asks again
            for _ in range(_TRIES):
                now = await self._now()
                shared = now.shared
                if shared is None or shared.order != order.id:
                    shared = ordered(now)
                    put = smk_generations.put(shared, now.version, now.cluster.identity)
                    try:
                        await self._carry_out(now.cluster, now.records, put)
                    except VersionConflict:
                        continue  # another was first
                await self.take()
                held = tuple(each.generation for each in shared.generations)
                return smk.SmkOrdered(newest=shared.newest, generations=held)
        raise Busy("what the HSMs share of the SMK is changed all the time")

    async def _now(self) -> _Now:
        status = await self._status()
        if status is None or status.state != "read-write":
            state = status.state if status is not None else "in no cluster"
            raise MemberReadOnly(f"this member is {state}: the SMK's generations cannot be changed through it now")
        shared, version = await self.take()
        cluster = self._member_of()
        if shared is not None and cluster.smk[-1].generation != shared.newest:
            raise MemberBehind(f"this member's HSM has not taken generation {shared.newest} of the SMK yet")
        records = await self._records(cluster)
        if records is None:
            raise NoCluster("this member's store does not hold the cluster's records yet")
        known = await self._known(records)
        return _Now(cluster, records, shared, version, known, [each.id for each in status.members])

    # --- what there is

    def _cluster(self) -> Cluster | None:
        state = self._vault.state
        cluster = state.cluster if state else None
        return cluster if cluster is not None and cluster.phase is Phase.CREATED else None

    def _member_of(self) -> Cluster:
        cluster = self._cluster()
        if cluster is None:
            raise NoCluster("this member has no cluster")
        return cluster

    async def _status(self) -> store.Status | None:
        """Return the store's status; None while it does not hold this cluster."""
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        return status if status.cluster == self._member_of().id else None

    async def _records(self, cluster: Cluster) -> Records | None:
        where = cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)
        item = await answers.fetch(self._store, where, STORE_SECONDS)
        return cluster.records_of(item) if item else None

    async def _known(self, records: Records) -> list[HsmRecord]:
        """Return the HSMs that have introduced themselves."""
        scan = store.Scan(table=TABLES[HsmRecord], limit=_MEMBERS_AT_ONCE, body=True)
        page = await answers.fetch_page(self._store, scan, STORE_SECONDS)
        return [records.read(HsmRecord, item) for item in page.items]

    # --- the steps of a rollover

    async def _share(
        self, cluster: Cluster, records: Records, shared: Shared | None, version: int, recipients: Sequence[HsmRecord]
    ) -> None:
        """Share what this HSM holds with members that were not listed when it was ordered."""
        made = smk_generations.share(cluster.id, cluster.smk, recipients, secrets.token_bytes(16), int(self._clock()))
        if shared is not None:
            made = msgspec.structs.replace(shared, sealed=made.sealed)
        await self._commit(cluster, records, smk_generations.put(made, version, cluster.identity))

    async def _use(self, records: Records, shared: Shared, version: int) -> None:
        """Seal the cluster's own record under the newest generation, which is in use from then on."""
        cluster = self._member_of()
        item = await answers.fetch(self._store, records.fence().key, STORE_SECONDS)
        if item is None or item.version != records.version:
            return
        own = records.read(ClusterRecord, item)
        put = records.at(shared.newest).put(own, CLUSTER_RECORD, item.version)
        if await self._commit(cluster, None, store.Require(key=KEY, version=version), put):
            self._note(shared.newest, "in use")

    async def _seal_anew(self, cluster: Cluster, records: Records) -> bool:
        """Seal all records under the generation in use, a few in each commit; tells whether there was no other.

        So what is under way beside it is not told that it is over before a look that found nothing.
        """
        found_none = True
        async for table, scope in self._scopes():
            after, tries, more = b"", _TRIES, True
            while more:
                scan = store.Scan(table=table, scope=scope, after=after, limit=SEALED_AT_ONCE, body=True)
                page = await answers.fetch_page(self._store, scan, STORE_SECONDS)
                found = [smk_generations.resealed(item, records, cluster) for item in page.items]
                changes = [change for change in found if change is not None]
                if not page.current:
                    return False
                found_none = found_none and not changes
                if changes and not await self._commit(cluster, records, *changes):
                    tries -= 1
                    if not tries:
                        return False
                    continue  # one of them changed meanwhile
                after, more, tries = page.items[-1].key.id if page.items else after, page.more, _TRIES
        return found_none

    async def _scopes(self) -> AsyncIterator[tuple[str, bytes]]:
        for table in sorted(RECORD_TABLES):
            after: bytes | None = None
            more = True
            while more:
                page = await answers.fetch_scopes(
                    self._store, store.ListScopes(table=table, after=after), STORE_SECONDS
                )
                for scope in page.scopes:
                    yield table, scope
                    after = scope
                more = page.more

    # --- writing

    async def _commit(self, cluster: Cluster, records: Records | None, *changes: store.Change) -> bool:
        """Commit changes, behind the fence of `records`; tells whether they are done. The next look tries again."""
        try:
            await self._carry_out(cluster, records, *changes)
        except VersionConflict:
            return False
        except LnhError as error:
            _log.warning("not done, tried again", problem=str(error))
            return False
        return True

    async def _carry_out(self, cluster: Cluster, records: Records | None, *changes: store.Change) -> None:
        commit = store.Commit(
            client=cluster.member,
            session=secrets.token_bytes(16),
            sequence=1,
            issued_at=int(self._clock() * 1000),
            changes=changes if records is None else (records.fence(), *changes),
        )
        await self._store.ask(store.COMMIT, commit, timeout=STORE_SECONDS)

    def _note(self, generation: int, outcome: str) -> None:
        self._desk.record(smk.GENERATION, f"generation {generation}", outcome)
        _log.info("smk generation", generation=generation, now=outcome)


def _taken(state: HsmState, shared: Shared) -> HsmState:
    assert state.cluster is not None, "generations are a cluster's"
    return msgspec.structs.replace(state, cluster=smk_generations.take(shared, state.cluster, state.identity))
