"""The cores of several members over one store of dicts, whose processes die at any question they ask of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import msgspec

import lnh_common
from lnh_common import limits
from lnh_common.errors import MemberBehind
from lnh_common.messages import store
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.hsm import ChannelSeed, SmkGeneration
from lnh_common.messages.session import Role
from lnh_common.messages.store import Commit, Item, Key, MemberInfo, Put
from lnh_common.versions import minor
from lnh_common.wire import codec
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Cluster, HsmState, Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster import smk_generations
from lnh_services.hsm.cluster.channel_keeper import ChannelKeeper
from lnh_services.hsm.cluster.smk_generations import Shared
from lnh_services.hsm.cluster.smk_keeper import SmkKeeper, fetch_shared
from lnh_services.hsm.records import (
    CLUSTER_RECORD,
    RECORD_TABLES,
    TABLES,
    ChannelRecord,
    ClusterRecord,
    CredentialRecord,
    HsmRecord,
    LockRecord,
    Records,
    UserRecord,
    record_id,
)
from models.storage import DictStore
from models.worker import START, derived

T = TypeVar("T")

PASSWORD: Final = "a password of alice"
KEYRING_KEY: Final = bytes(range(32))
_ASKED: Final = credentials.derivation(PASSWORD)
DERIVED: Final = derived(_ASKED.password, _ASKED.salt)
MATERIAL: Final = credentials.material(_ASKED, DERIVED)
_LEFT_OUT: Final = {TABLES[HsmRecord], TABLES[ChannelRecord]}


class Died(Exception):
    """The process ended here."""


class Held:
    """A vault without a file: what survives a process."""

    def __init__(self, state: HsmState) -> None:
        self.state = state

    @property
    def opened(self) -> HsmState:
        return self.state

    def change(self, how: Any) -> HsmState:
        self.state = cast("HsmState", how(self.state))
        return self.state


class Acts:
    """What the audit trail would have."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str]] = []

    def record(self, operation: str, target: str, outcome: str) -> None:
        self.recorded.append((target, outcome))


class Member:
    """One member's core; `dies_at` counts the questions until it dies, `answered` whether that one was still carried out."""

    def __init__(self, world: SmkCluster, held: Held) -> None:
        self.world, self.held = world, held
        self.is_up, self.acts = True, Acts()
        self.dies_at, self.answered = 0, False
        self.start()

    @property
    def cluster(self) -> Cluster:
        assert self.held.state.cluster is not None
        return self.held.state.cluster

    @property
    def generations(self) -> list[int]:
        return [each.generation for each in self.cluster.smk]

    def start(self) -> None:
        """A process that knows what is on its disk alone."""
        self.dies_at = 0
        vault = cast("Vault", self.held)
        self.channel = ChannelKeeper(vault, self, self.world.clock)
        self.smks = SmkKeeper(vault, self, cast("Desk", self.acts), introduce=self.channel.keep, clock=self.world.clock)

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
        self.dies_at -= 1
        if self.dies_at == 0 and not self.answered:
            raise Died
        reply = (
            self.world.status(self)
            if operation is store.STATUS
            else self.world.items.answer(message, int(self.world.now * 1000))
        )
        if self.dies_at == 0:
            raise Died
        return reply


class SmkCluster:
    """Several members, what they have stored, and what was archived of it."""

    def __init__(self, count: int = 3) -> None:
        self.now = START
        self.items = DictStore()
        self.archives: list[tuple[int, list[Item]]] = []
        self._written = 0
        common: dict[str, Any] = {
            "id": os.urandom(16),
            "label": "prod",
            "partition": "0" * 16,
            "phase": Phase.CREATED,
            "identity": os.urandom(32),
            "smk": (SmkGeneration(generation=1, key=os.urandom(32)),),
            "channel": (ChannelSeed(epoch=1, seed=os.urandom(32), end=int(START) + limits.CHANNEL_EPOCH),),
        }
        states = [
            HsmState(
                label="a", identity=os.urandom(32), so=cast("Any", None), domain="d",
                cluster=Cluster(member=os.urandom(16), **common),
            )
            for _ in range(count)
        ]  # fmt: skip
        self.members = [Member(self, Held(state)) for state in states]
        self.primary = self.members[0]
        self._found()

    def clock(self) -> float:
        return self.now

    def _found(self) -> None:
        cluster = self.primary.cluster
        records = cluster.records(os.urandom(16))
        own = ClusterRecord(
            id=cluster.id, label="prod", instance=records.instance, created_at=1, product=minor(lnh_common.VERSION)
        )
        self.commit(records.put(own, CLUSTER_RECORD, 0))
        self.commit(
            records.put(UserRecord(name="alice", role="admin"), record_id("user", "alice"), 0, unique="alice"),
            records.put(self.credential(cluster, 1), credentials.credential_id(Role.USER, "alice"), 0),
            *(records.put(LockRecord(failures=n), b"l" * 16, 0, scope=bytes([n]) * 3) for n in range(1, 4)),
            *(records.put(LockRecord(failures=n), bytes([n]) * 16, 0, scope=b"s") for n in range(1, 70)),
        )
        for member in self.members:
            run(member.channel.keep())

    def credential(self, cluster: Cluster, generation: int, name: str = "alice") -> CredentialRecord:
        return credentials.new_record(
            MATERIAL, role=Role.USER, smk=cluster.smk_of(generation), cluster=cluster.id, now=1, name=name,
            keyring=b"k" * 16, keyring_key=KEYRING_KEY,
        )  # fmt: skip

    def commit(self, *changes: store.Change) -> None:
        self._written += 1
        issued_at = int(self.now * 1000)
        self.items.answer(
            Commit(client=b"w" * 16, session=b"w" * 16, sequence=self._written, issued_at=issued_at, changes=changes),
            issued_at,
        )

    def status(self, member: Member) -> store.Status:
        listed = tuple(
            MemberInfo(id=each.cluster.member, name=f"m{number}", host="h", port=1000 + number, key=bytes(32))
            for number, each in enumerate(self.members)
        )
        in_sync = tuple(each.cluster.member for each in self.members if each.is_up)
        return store.Status(
            state="read-write", cluster=member.cluster.id, member=member.cluster.member,
            primary=self.primary.cluster.member, epoch=1, in_sync=in_sync, last_index=0, committed_index=0,
            applied_index=0, items=0, bytes_on_disk=0, commits_per_second=0.0, members=listed,
        )  # fmt: skip

    # --- what there is

    def stored(self, key: Key) -> Item:
        item = self.items.storage.get(key)
        assert item is not None
        return item

    def records(self, member: Member) -> Records:
        """What the member's HSM reads and writes with now; raises MemberBehind where it has not taken what is in use."""
        return member.cluster.records_of(self.stored(Key(table=TABLES[ClusterRecord], id=CLUSTER_RECORD)))

    def shared(self, member: Member) -> Shared | None:
        return run(fetch_shared(member, member.cluster))[0]

    def all_records(self) -> list[Item]:
        return [item for item in self.items.storage.items.values() if item.key.table in RECORD_TABLES]

    # --- what happens

    def tick(self, member: Member, dies_at: int = 0, *, answered: bool = False) -> None:
        """One look of a core, or the part of it until its process died."""
        self.now += 1
        member.dies_at, member.answered = dies_at, answered
        try:
            with suppress(MemberBehind):  # each is looked at by itself, and again a little later
                run(member.channel.keep())
            with suppress(MemberBehind):
                run(member.smks.keep())
        except Died:
            member.start()
        member.dies_at = 0

    def archive(self, member: Member) -> None:
        needed = smk_generations.needed_by_an_archive(self.shared(member), member.cluster, self.records(member))
        self.archives.append((needed, [*self.items.storage.items.values()]))

    def restore(self, member: Member, number: int) -> None:
        """What `backup/restore.py` leaves; it needs the generation that the archive names, and no other."""
        _, archived = self.archives[number]
        now = self.records(member)
        (own,) = [item for item in archived if item.key.table == TABLES[ClusterRecord]]
        source = member.cluster.records_of(own)
        target = member.cluster.records(os.urandom(16)).at(now.generation)
        kept = {at: item for at, item in self.items.storage.items.items() if at[0] == smk_generations.TABLE}
        restored: dict[tuple[str, bytes, bytes], Item] = {}
        for item in archived:
            if item.key.table not in RECORD_TABLES - _LEFT_OUT:
                continue
            source.check(item)
            if item.key.table == TABLES[ClusterRecord]:
                head = codec.encode(
                    msgspec.structs.replace(codec.decode_as(item.head, ClusterRecord), instance=target.instance)
                )
                item = msgspec.structs.replace(item, version=now.version + 1, head=head)
            restored[item.key.table, item.key.scope, item.key.id] = target.remade(item)
        self.items.storage.items = restored | kept

    def write(self, records: Records, cluster: Cluster, number: int) -> tuple[store.Change, Put, Put]:
        """The changes of a request: a user, and its credential, made for what was read by then."""
        name = f"user-{number}"
        return (
            records.fence(),
            records.put(UserRecord(name=name, role="admin"), record_id("user", name), 0, unique=name),
            records.put(
                self.credential(cluster, records.generation, name), credentials.credential_id(Role.USER, name), 0
            ),
        )

    def settle(self) -> None:
        """Have everybody up look until nothing is left to do."""
        for member in self.members:
            member.is_up = True
        for _ in range(12):
            for member in self.members:
                self.tick(member)

    # --- what must be so

    def check_whole(self) -> None:
        """Everything is sealed under the newest generation, which every HSM holds, with those that are not retired."""
        shared = self.shared(self.primary)
        newest = shared.newest if shared is not None else 1
        held = [each.generation for each in shared.generations] if shared is not None else [1]
        for member in self.members:
            records = self.records(member)
            assert (member.generations, records.generation) == (held, newest)
            assert shared is None or shared.is_whole(records.instance)
            for item in self.all_records():
                assert smk_generations.resealed(item, records, member.cluster) is None, item.key
                records.check(item)
            self._check_credentials(member, records, newest)

    def _check_credentials(self, member: Member, records: Records, newest: int) -> None:
        found = 0
        for item in self.all_records():
            if item.key.table == TABLES[UserRecord]:
                assert item.tags == (records.tag(records.read(UserRecord, item).name),), "it is found by its name"
            if item.key.table != TABLES[CredentialRecord]:
                continue
            record, smk = records.read(CredentialRecord, item), member.cluster.smk_of(newest)
            assert record.generation == newest
            assert credentials.is_correct(record, DERIVED, smk, member.cluster.id)
            assert credentials.keyring_key(record, DERIVED, smk, member.cluster.id) == KEYRING_KEY
            found += 1
        assert found


def run(steps: Awaitable[T]) -> T:
    async def awaited() -> T:
        return await steps

    return asyncio.run(awaited())
