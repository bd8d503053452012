"""A world of workers whose SMK is rolled over at a moment that a test chooses."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from lnh_common.messages import hsm, store
from lnh_common.messages.base import Message
from lnh_services.hsm.appliance.state import Cluster, Phase
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster import smk_generations
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.effects import Ask, Peer
from lnh_services.hsm.records import CLUSTER_RECORD, RECORD_TABLES, ClusterRecord, Records, generation_of
from models.worker import World


class Rolling(World):
    """A world whose SMK is rolled over; the workers hear of it from their stores alone."""

    def __init__(self) -> None:
        super().__init__()
        self.at: Callable[[Ask], bool] = lambda _: False  # before this is answered
        self.ordered = 0

    def answer(self, asked: Ask) -> Message:
        if self.at(asked):
            self.at = lambda _: False
            self.use_another_generation()
        return super().answer(asked)

    def committed(self, *changes: store.Change) -> None:
        self.ordered += 1
        commit = store.Commit(
            client=self.cluster,
            session=b"roll" * 4,
            sequence=self.ordered,
            issued_at=int(self.now * 1000),
            changes=changes,
        )
        super().answer(Ask(Peer.STORE, store.COMMIT, commit))

    def records(self) -> tuple[ClusterRecord, Records]:
        bare = credentials.record_means(self.secrets.smk, self.cluster, self.secrets.lookup)
        item = self.store.storage.get(bare.key_of(ClusterRecord, CLUSTER_RECORD))
        assert item is not None
        return bare.read(ClusterRecord, item), bare.of(item)

    def use_another_generation(self) -> None:
        """What an order, every HSM's word and the primary's come to."""
        generation = self.secrets.smk[-1].generation + 1
        newest = hsm.SmkGeneration(generation=generation, key=os.urandom(32))
        lookup = self.secrets.lookup or Purpose.RECORD.derive(self.secrets.smk[0].key)
        self.secrets = msgspec.structs.replace(self.secrets, smk=(*self.secrets.smk, newest), lookup=lookup)
        self._share(b"")
        own, records = self.records()
        self.committed(records.at(generation).put(own, CLUSTER_RECORD, records.version))

    def seal_anew(self, at_most: int) -> bool:
        """What the primary's HSM does after it, some records at a time; tells whether nothing was left."""
        _, records = self.records()
        cluster = Cluster(
            id=self.cluster, label="test", member=self.secrets.member, partition="", phase=Phase.CREATED,
            identity=self.secrets.identity, smk=self.secrets.smk, channel=self.secrets.channel,
            lookup=self.secrets.lookup,
        )  # fmt: skip
        items = [item for item in self.store.storage.items.values() if item.key.table in RECORD_TABLES]
        puts = [put for item in items if (put := smk_generations.resealed(item, records, cluster)) is not None]
        for put in puts[:at_most]:
            self.committed(put)
        if len(puts) <= at_most:
            self._share(records.instance)
        return len(puts) <= at_most

    def _share(self, whole: bytes) -> None:
        before = self.store.storage.get(smk_generations.KEY)
        shared = smk_generations.share(self.cluster, self.secrets.smk, [], b"o" * 16, int(self.now))
        shared = msgspec.structs.replace(shared, whole=whole)
        version = before.version if before is not None else 0
        self.committed(smk_generations.put(shared, version, self.secrets.identity))

    def seals(self) -> set[int]:
        """The generations that records are sealed under."""
        return {
            generation_of(item.body) for item in self.store.storage.items.values() if item.key.table in RECORD_TABLES
        }
