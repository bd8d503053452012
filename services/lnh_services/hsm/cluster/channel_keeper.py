"""Keeps this HSM's channel seeds those of the cluster: takes shared seeds, and on the primary draws a seed when due."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from lnh_common.errors import LnhError, VersionConflict
from lnh_common.events import Log
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from lnh_common.messages.hsm import ChannelSeed
from lnh_services.hsm import answers
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance.state import Cluster, HsmState, Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.cluster import channel_seeds
from lnh_services.hsm.cluster.channel_seeds import CHANNEL_RECORD, with_seed
from lnh_services.hsm.cluster.join import STATUS_SECONDS, STORE_SECONDS
from lnh_services.hsm.cluster.join_protocol import Identity
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.records import (
    CLUSTER_RECORD,
    FIRST_GENERATION,
    TABLES,
    ChannelRecord,
    ClusterRecord,
    HsmRecord,
    Records,
)

RESTS_ON: Final = frozenset(
    {TABLES[ClusterRecord], TABLES[HsmRecord], TABLES[ChannelRecord], store.MEMBERS.table}
)  # fmt: skip
_MEMBERS_AT_ONCE: Final = 1024

_log: Final = Log("hsm.channel")


class ChannelKeeper:
    """Keeps the channel seeds of one core.

    Args:
        store: asks this member's.
        clock: UTC seconds.
    """

    def __init__(self, vault: Vault, store: Asks, clock: Callable[[], float] = time.time) -> None:
        self._vault: Final = vault
        self._store: Final = store
        self._clock: Final = clock

    async def keep(self) -> bool:
        """Look once, and do what is due.

        Returns whether nothing is left to be done until `RESTS_ON` changes, or a seed is due.
        Raises what the store answers, SealBroken.
        """
        cluster = self._cluster()
        if cluster is None:
            return False
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        records = await self._records(cluster) if status.cluster == cluster.id else None
        if records is None:
            return False
        writable = status.state == "read-write"
        done = writable and await self._introduce(cluster, records)
        shared, version = await self._shared(records)
        self._take(shared)
        if writable and status.primary == cluster.member:
            listed = {each.id for each in status.members} | {cluster.member}
            done = await self._share(records, shared, version, listed) and done
        return done

    def _cluster(self) -> Cluster | None:
        state = self._vault.state
        cluster = state.cluster if state else None
        return cluster if cluster is not None and cluster.phase is Phase.CREATED else None

    async def _records(self, cluster: Cluster) -> Records | None:
        """Make the means to read records; None while this member's store holds no cluster yet."""
        where = cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)
        item = await answers.fetch(self._store, where, STORE_SECONDS)
        return cluster.records_of(item) if item else None

    async def _introduce(self, cluster: Cluster, records: Records) -> bool:
        """Write this HSM's public keys, and what it holds of the SMK, into the replicated state; tells whether done."""
        where = records.key_of(HsmRecord, cluster.member)
        item = await answers.fetch(self._store, where, STORE_SECONDS)
        identity, newest = Identity.of(self._vault.opened.identity), cluster.smk[-1].generation
        held = newest if newest > FIRST_GENERATION else 0
        mine = HsmRecord(member=cluster.member, sign=identity.sign, receive=identity.receive, smk=held)
        if item is not None and records.read(HsmRecord, item) == mine:
            return True
        return await self._commit(cluster, records, records.put(mine, cluster.member, item.version if item else 0))

    async def _shared(self, records: Records) -> tuple[ChannelRecord | None, int]:
        where = records.key_of(ChannelRecord, CHANNEL_RECORD)
        item = await answers.fetch(self._store, where, STORE_SECONDS)
        return (records.read(ChannelRecord, item), item.version) if item else (None, 0)

    def _take(self, shared: ChannelRecord | None) -> None:
        """Hold the shared seed, and erase epochs that are over."""
        cluster = self._cluster()
        if shared is None or cluster is None or shared.epoch < cluster.channel[-1].epoch:
            return
        seed = channel_seeds.take(shared, cluster.id, cluster.member, self._vault.opened.identity)
        if seed is not None and with_seed(cluster.channel, seed, int(self._clock())) is not cluster.channel:
            self._vault.change(lambda state: self._with(state, seed))
            _log.info("channel epoch taken", epoch=seed.epoch)

    def _with(self, state: HsmState, seed: ChannelSeed) -> HsmState:
        assert state.cluster is not None, "a seed is of a cluster"
        channel = with_seed(state.cluster.channel, seed, int(self._clock()))
        return replace(state, cluster=replace(state.cluster, channel=channel))

    async def _share(self, records: Records, shared: ChannelRecord | None, version: int, listed: set[bytes]) -> bool:
        """Draw and share a seed that is due; tells whether none is left to be.

        It is taken from the record, by this HSM too: then it was committed.
        """
        cluster = self._cluster()
        if cluster is None:
            return False
        table = records.key_of(HsmRecord, b"").table
        scan = store.Scan(table=table, limit=_MEMBERS_AT_ONCE, body=True)
        page = await answers.fetch_page(self._store, scan, STORE_SECONDS)
        known = [records.read(HsmRecord, item) for item in page.items]
        if all(each.member != cluster.member for each in known):
            return False  # not introduced itself yet, it would share what it cannot take
        now = int(self._clock())
        next_ = channel_seeds.due(
            cluster.channel, shared, cluster.id, known, listed, now, lambda: secrets.token_bytes(KEY_BYTES)
        )
        if next_ is None:
            return True
        if not await self._commit(cluster, records, records.put(next_, CHANNEL_RECORD, version)):
            return False
        self._take(next_)
        return True

    async def _commit(self, cluster: Cluster, records: Records, change: store.Change) -> bool:
        """Commit a change, and tell whether it is done; where another member was first, the next round looks again."""
        commit = store.Commit(
            client=cluster.member,
            session=secrets.token_bytes(16),
            sequence=1,
            issued_at=int(self._clock() * 1000),
            changes=(records.fence(), change),
        )
        try:
            await self._store.ask(store.COMMIT, commit, timeout=STORE_SECONDS)
        except VersionConflict:
            return False
        except LnhError as error:
            _log.warning("not shared, tried again", problem=str(error))
            return False
        return True
