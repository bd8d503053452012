"""The core's part in backup: gives keys and seals to the backup service of its member."""

from __future__ import annotations

import secrets
import time
from typing import Final

from lnh_common.bus.server import Call, Server
from lnh_common.errors import NoCluster, NotPossible
from lnh_common.messages import backup, store
from lnh_common.messages.base import Empty
from lnh_common.wire.archives import parse_header
from lnh_services.hsm import answers
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance.state import Cluster, Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.backup import archive_keys
from lnh_services.hsm.cluster import smk_generations
from lnh_services.hsm.cluster.join import STORE_SECONDS
from lnh_services.hsm.cluster.smk_keeper import fetch_shared
from lnh_services.hsm.records import CLUSTER_RECORD, ClusterRecord, Records, RunRecord


class Archiving:
    """Serves the backup service's questions for one core.

    Args:
        store: asks this member's.
        member: its name.
    """

    def __init__(self, vault: Vault, store_: Asks, member: str) -> None:
        self._vault: Final = vault
        self._store: Final = store_
        self._member: Final = member

    def serve(self, server: Server) -> None:
        """Enter the operations that the backup service asks."""
        server.serve(backup.NEW_KEY, self._on_new_key)
        server.serve(backup.SEAL, self._on_seal)
        server.serve(backup.OPEN, self._on_open)
        server.serve(backup.NOTE_RUN, self._on_note_run)

    async def _on_new_key(self, call: Call, asked: backup.NewKey) -> backup.ArchiveKey:
        cluster = self.cluster()
        records = await self.records(cluster)
        shared, _ = await fetch_shared(self._store, cluster)
        generation = smk_generations.needed_by_an_archive(shared, cluster, records)
        key, wrapped = archive_keys.new_key(cluster, asked.id, generation)
        return backup.ArchiveKey(
            key=key,
            wrapped=wrapped,
            cluster=cluster.id,
            label=cluster.label,
            instance=records.instance,
            generation=generation,
            member=self._member,
        )

    async def _on_seal(self, call: Call, asked: backup.Sealing) -> backup.Sealed:
        cluster = self.cluster()
        sealed = archive_keys.seal_manifest(cluster, asked.header, asked.manifest)
        if (await self.records(cluster)).instance != parse_header(asked.header).instance:
            raise NotPossible("the cluster was restored while the archive was made")
        return backup.Sealed(seal=sealed)

    async def _on_open(self, call: Call, asked: backup.Opening) -> backup.DataKey:
        return backup.DataKey(key=archive_keys.open_archive(self.cluster(), asked.header, asked.manifest, asked.seal))

    async def _on_note_run(self, call: Call, noting: backup.Noting) -> Empty:
        """Write the run into the replicated state.

        Raises VersionConflict when another member was first, MemberReadOnly.
        """
        cluster = self.cluster()
        records = await self.records(cluster)
        put = records.put(RunRecord(run=noting.run), backup.RUN_ID, noting.version)
        commit = store.Commit(
            client=cluster.member,
            session=secrets.token_bytes(16),
            sequence=1,
            issued_at=time.time_ns() // 1_000_000,
            changes=(records.fence(), put),
        )
        await self._store.ask(store.COMMIT, commit, timeout=STORE_SECONDS)
        return Empty()

    def cluster(self) -> Cluster:
        """Return the cluster; raises NotActivated, NoCluster."""
        cluster = self._vault.opened.cluster
        if cluster is None or cluster.phase is not Phase.CREATED:
            raise NoCluster("this member has no cluster")
        return cluster

    async def records(self, cluster: Cluster) -> Records:
        """Make the means to read and make records of the present instance; raises NoCluster where there is none yet."""
        where = cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)
        item = await answers.fetch(self._store, where, STORE_SECONDS)
        if item is None:
            raise NoCluster("this member's store does not hold the cluster's records yet")
        return cluster.records_of(item)
