"""The local console of one appliance on real files, with a store of dicts beside it; no process, no socket, no clock."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import AlreadyDone, LnhError, OutcomeUnknown, TpmFailed
from lnh_common.messages import console, hsm, membership, smk, store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.hsm import AuditEntry, Derive
from lnh_common.messages.session import Role
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.partitions import PartitionFiles
from lnh_services.hsm.appliance.state import ApplianceFile, StateFile
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.audit.trail import Trail
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster.channel_keeper import ChannelKeeper
from lnh_services.hsm.cluster.custody import Custody
from lnh_services.hsm.cluster.join import Belonging
from lnh_services.hsm.cluster.smk_keeper import SmkKeeper
from lnh_services.hsm.core.cluster_contents import ClusterContents
from lnh_services.hsm.core.console import Console, Surroundings
from lnh_services.hsm.core.damage import DamageMark
from lnh_services.hsm.crypto.process_hardening import Hardening
from lnh_services.hsm.crypto.tpm import TpmSealed
from lnh_services.hsm.records import CLUSTER_RECORD, ClusterRecord, CredentialRecord
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from models.storage import DictStore
from models.worker import START, derived

SO = "security officer"
PO = "partition owner"
CO = "crypto officer"
ADMIN = "admin password"
ACTIVATION = b"activation secret"
ARGON2 = (64, 1, 1)  # named in the state file; the derivation itself is a hash here


def member(name: str, number: int, port: int) -> store.MemberInfo:
    return store.MemberInfo(id=bytes([number]) * 16, name=name, host="127.0.0.1", port=port, key=bytes([number]) * 32)


class Store:
    """The member's store as the console asks it. `fail` may raise before or after an operation is carried out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.items = DictStore()
        self.cluster = self.member = b""
        self.state = "read-write"
        self.primary = b""
        self.members: tuple[store.MemberInfo, ...] = ()
        self.groups = {limits.LOCAL_GROUP}
        self.asked: list[str] = []
        self.lease_ms = 0  # as it was told; 0: never
        self.lose_answer_of = 0
        self._clock = clock

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
        self.asked.append(operation.name)
        reply = self._answer(message)
        if self.lose_answer_of == len(self.asked):
            raise OutcomeUnknown("the answer was lost")
        return reply

    def _answer(self, message: Message) -> Message:
        match message:
            case Empty():
                return store.Status(
                    state=self.state if self.cluster else "none", cluster=self.cluster, member=self.member, primary=self.primary,
                    epoch=1, in_sync=(), last_index=0, committed_index=0, applied_index=0, items=0, bytes_on_disk=0,
                    commits_per_second=0.0, members=self.members, groups=tuple(sorted(self.groups)),
                )  # fmt: skip
            case store.Create():
                if self.cluster not in (b"", message.cluster):
                    raise AlreadyDone("another cluster")
                self.cluster, self.member = message.cluster, message.member.id
                return Empty()
            case store.Adopt():
                if self.cluster not in (b"", message.cluster):
                    raise AlreadyDone("another cluster")
                self.cluster, self.member, self.members = message.cluster, message.member.id, message.members
                return Empty()
            case store.SetLeaseSettings():
                self.lease_ms = message.lease_ms
                return store.Committed(index=1)
            case store.SetMember():
                others = tuple(each for each in self.members if each.id != message.member.id)
                self.members = (*others, message.member)
                return store.Committed(index=len(self.members))
            case store.MoveMember():
                assert message.group in self.groups
                self.members = tuple(
                    replace(each, group=message.group) if each.id == message.member else each for each in self.members
                )
                return store.Committed(index=1)
            case store.CreateGroup():
                self.groups.add(message.group)
                return store.Committed(index=1)
            case store.DeleteGroup():
                assert all(each.group != message.group for each in self.members)
                self.groups.remove(message.group)
                return store.Committed(index=1)
            case store.Destroy():
                assert message.cluster == self.cluster
                self.cluster, self.items, self.members = b"", DictStore(), ()
                return Empty()
            case _:
                return self.items.answer(message, int(self._clock() * 1000))


class Workers:
    """Counts as running what was started."""

    def __init__(self) -> None:
        self.running = 0

    def start(self) -> None:
        self.running = 2

    async def stop(self) -> None:
        self.running = 0


class Membership:
    """The member's membership as the console asks it; `peers` are the members that may be asked to let it in."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.key = bytes([port % 256]) * 32
        self.renewed = 0
        self.peers: dict[int, OneAppliance] = {}
        self.asked: list[str] = []
        self.change_request: Callable[[bytes], bytes] = bytes
        self.change_reply: Callable[[bytes], bytes] = bytes

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
        self.asked.append(operation.name)
        match message:
            case membership.Prepare():
                if message.renew:
                    self.renewed += 1
                    self.key = bytes([self.port % 256, self.renewed]) * 16
                host = "127.0.0.1"
                info = store.MemberInfo(id=message.member, name=self.name, host=host, port=self.port, key=self.key)
                return membership.Prepared(member=info)
            case membership.AskToJoin():
                inviter = self.peers[message.port]
                admit = hsm.Admit(invitation=message.invitation, request=self.change_request(message.request))
                admitted = await inviter.belonging.admit(admit)
                await inviter.store.ask(store.MEMBER_SET, store.SetMember(member=admitted.member), timeout=1)
                return membership.Joined(reply=self.change_reply(admitted.reply))
            case _:
                return membership.View(cluster=b"", primary=b"", epoch=1, members=(), services=(), waiting_for=("b",))


class OneTpm:
    """A TPM, as far as a core sees one: it opens what it sealed, unless it was told to fail."""

    def __init__(self) -> None:
        self.failing: LnhError | None = None
        self._name = secrets.token_bytes(34)
        self._sealed: dict[bytes, bytes] = {}

    async def seal(self, key: bytes, pcrs: tuple[int, ...] = ()) -> TpmSealed:
        if self.failing is not None:
            raise self.failing
        private = secrets.token_bytes(16)
        self._sealed[private] = key
        return TpmSealed(self._name, b"public", private, pcrs)

    async def open(self, sealed: TpmSealed) -> bytes:
        if self.failing is not None:
            raise self.failing
        if sealed.private not in self._sealed:
            raise TpmFailed("not the one that sealed")
        return self._sealed[sealed.private]


class OneAppliance:
    """An appliance in `directory`; `restart` is what a crash of the core leaves: the files and the store."""

    def __init__(self, directory: Path, name: str = "a", port: int = 7100) -> None:
        self.directory = directory
        self.name = name
        self.now = START
        self.lease_ms = limits.LEASE_MS
        self.membership = Membership(name, port)
        self.store = Store(self._clock)
        self.tpm = OneTpm()
        self.restart()

    def restart(self) -> None:
        self.trail_path = self.directory / "audit.jsonl"
        self.vault = Vault(
            StateFile(self.directory / "hsm.state", ARGON2),
            ApplianceFile(self.directory / "appliance.cbor"),
            PartitionFiles(self.directory),
        )
        self.trail = Trail(self.trail_path, self.name)
        self.trail.open(int(self.now * 1000))
        self.workers = Workers()
        self.damage, self.seen = DamageMark(), HighestSeen()
        self.desk = Desk(self.vault, self.trail, derive=self._derive, workers=self.workers, clock=self._clock)
        self.channel = ChannelKeeper(self.vault, self.store, self._clock)
        self.smks = SmkKeeper(self.vault, self.store, self.desk, introduce=self.channel.keep, clock=self._clock)
        self.belonging = Belonging(
            self.vault,
            self.desk,
            derive=self._derive,
            store=self.store,
            membership=self.membership,
            take_smks=self.smks.take,
            clock=self._clock,
        )
        self.custody = Custody(self.vault, self.desk, self.belonging, derive=self._derive, clock=self._clock)
        self.console = Console(
            self.vault,
            self.trail,
            self.desk,
            self.belonging,
            derive=self._derive,
            contents=ClusterContents(self.store, self._clock),
            others=self.custody.performers(),
            tpm=self.tpm,
            surroundings=Surroundings(
                name=self.name,
                door="localhost:7100",
                host="localhost",
                port=7100,
                key=lambda: b"k" * 32,
                hardening=Hardening(True, True, ()),
                trail_path=self.trail_path,
                lease_ms=self.lease_ms,
                damage=self.damage,
                seen=self.seen,
            ),
            clock=self._clock,
        )

    async def roll_over(self) -> None:
        """Order another generation of the SMK, and have this core, of the only member that is listed, finish it."""
        cluster = self.vault.opened.cluster
        assert cluster is not None
        self.store.members = (replace(member(self.name, 1, 7100), id=cluster.member),)
        self.store.primary = cluster.member
        await self.channel.keep()
        await self.smks.roll_over(smk.OrderSmk(id=secrets.token_bytes(16)))
        await self.look_at_smks()

    async def look_at_smks(self) -> None:
        """What the core does by itself within some seconds."""
        for _ in range(6):
            await self.channel.keep()
            await self.smks.keep()

    def _clock(self) -> float:
        return self.now

    @staticmethod
    async def _derive(request: Derive) -> bytes:
        return derived(request.password, request.salt)

    async def ask(self, operation: Operation[Any, Any], message: Message | None = None) -> Any:
        return await self.console.perform(operation, message or Empty())

    def audit(self, *entries: AuditEntry) -> None:
        self.trail.append(entries, int(self.now * 1000))

    # --- steps of the usual order

    async def appliance_init(self) -> None:
        await self.ask(console.APPLIANCE_INIT, console.InitAppliance(admin="alice", password=ADMIN))

    async def hsm_init(self, domain: str = "") -> console.Initialised:
        message = console.InitHsm(label="hsm-a", so_password=SO, activation=ACTIVATION, domain=domain)
        reply = await self.ask(console.HSM_INIT, message)
        assert isinstance(reply, console.Initialised)
        return reply

    async def activate(self) -> None:
        await self.ask(console.HSM_ACTIVATE, console.Activate(activation=ACTIVATION))

    async def deactivate(self) -> None:
        await self.ask(console.HSM_DEACTIVATE, console.Activate(activation=ACTIVATION))

    async def install(self) -> None:
        await self.ask(console.PACKAGE_INSTALL, console.InstallPackage(so_password=SO, name="cluster"))

    async def partition(self, label: str = "own", version: int = 0) -> console.PartitionView:
        message = console.CreatePartition(so_password=SO, label=label, version=version, po_password=PO, co_password=CO)
        view = await self.ask(console.PARTITION_CREATE, message)
        assert isinstance(view, console.PartitionView)
        return view

    async def cluster_create(self, label: str = "prod", po: str = PO) -> console.CreatedCluster:
        message = console.CreateCluster(so_password=SO, label=label, po_password=po)
        reply = await self.ask(console.CLUSTER_CREATE, message)
        assert isinstance(reply, console.CreatedCluster)
        return reply

    async def join(self, invitation: str) -> console.JoinedCluster:
        reply = await self.ask(console.CLUSTER_JOIN, console.JoinCluster(so_password=SO, invitation=invitation))
        assert isinstance(reply, console.JoinedCluster)
        return reply

    async def invite(self) -> str:
        return (await self.belonging.invite()).text

    async def cluster(self, domain: str = "") -> console.CreatedCluster:
        """Everything up to a cluster."""
        await self.appliance_init()
        await self.hsm_init(domain)
        await self.install()
        return await self.cluster_create()


def password_of(appliance: OneAppliance, role: Role, name: str) -> list[str]:
    """Which of the passwords of this test opens a credential of the cluster."""
    cluster = appliance.vault.opened.cluster
    assert cluster is not None
    stored = appliance.store.items.storage
    item = stored.get(cluster.records().key_of(ClusterRecord, CLUSTER_RECORD))
    assert item is not None
    records = cluster.records(cluster.records().read(ClusterRecord, item).instance)
    item = stored.get(records.key_of(CredentialRecord, credentials.credential_id(role, name)))
    assert item is not None
    record = records.read(CredentialRecord, item)
    return [
        password
        for password in (ADMIN, PO, SO, "reset password")
        if credentials.is_correct(record, derived(password.encode(), record.salt), cluster.newest_smk(), cluster.id)
    ]
