"""The local console: carries out what the directory's owner asks of the appliance and its HSM.

`appliance/preconditions.py` says what an act needs and what it changes; here it is authorised, recorded and carried
out, one act at a time. An act that changes something is written to the audit trail before it begins and
again with its outcome: what could not be written down is not done. An act that began is finished,
also when the asker no longer waits.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.bus.server import Call, Server
from lnh_common.errors import (
    ActivationFailed,
    AuditFailed,
    DeadlineExceeded,
    LnhError,
    NotActivated,
    PasswordIncorrect,
    SealBroken,
    Unreachable,
)
from lnh_common.events import Log
from lnh_common.messages import console, objects, store
from lnh_common.messages.base import OPERATIONS, Effect, Empty, Message, Operation
from lnh_common.messages.hsm import Derive
from lnh_common.wire import channel
from lnh_common.wire.audit import HeadLine
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.activation import Activation, Sealer
from lnh_services.hsm.appliance.desk import SO, Desk
from lnh_services.hsm.appliance.partitions import Contents
from lnh_services.hsm.appliance.state import Cluster, HsmState, Partition, Phase, User
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.audit import anchor
from lnh_services.hsm.audit import trail as audit
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.console_attempts import Verifier
from lnh_services.hsm.cluster import create
from lnh_services.hsm.cluster.join import Belonging
from lnh_services.hsm.cluster.join_protocol import Invitation
from lnh_services.hsm.core.cluster_contents import ClusterContents
from lnh_services.hsm.core.damage import DamageMark
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.crypto.mechanisms import IvSource
from lnh_services.hsm.crypto.process_hardening import Hardening
from lnh_services.hsm.worker.rollback_guard import HighestSeen

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
M = TypeVar("M", bound=Message)

_DOMAIN_BYTES: Final = 16

Perform = Callable[[Any], Awaitable[Message]]


@dataclass(frozen=True)
class Surroundings:
    """The facts about the member that the console needs.

    Args:
        name: of the member.
        door: `host:port` of its client port.
        host, port: where other members reach it (base port).
        key: returns the present CURVE key (32 bytes) of its member ports: an attempt to join renews it.
        advice: what an operator should know about its settings.
        lease_ms: how long members' leases last in a cluster that is created here.
        damage: whether its store served what it must not have.
        seen: how old the store's items must be at least.
    """

    name: str
    door: str
    host: str
    port: int
    key: Callable[[], bytes]
    hardening: Hardening
    trail_path: Path
    advice: tuple[str, ...] = ()
    lease_ms: int = limits.LEASE_MS
    damage: DamageMark = field(default_factory=DamageMark)
    seen: HighestSeen = field(default_factory=HighestSeen)


class Console:
    """Serves every operation of `messages/console.py`.

    Args:
        derive: runs one Argon2id elsewhere.
        contents: what this member's store holds of the cluster.
        others: operations that are carried out elsewhere, with their functions.
        tpm: of this machine.
        clock: UTC seconds.
    """

    def __init__(
        self,
        vault: Vault,
        trail: audit.Trail,
        desk: Desk,
        belonging: Belonging,
        *,
        derive: Callable[[Derive], Awaitable[bytes]],
        contents: ClusterContents,
        others: Mapping[str, Perform],
        tpm: Sealer,
        surroundings: Surroundings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault: Final = vault
        self._trail: Final = trail
        self._desk: Final = desk
        self._belonging: Final = belonging
        self._derive: Final = derive
        self._contents: Final = contents
        self._surroundings: Final = surroundings
        self._clock: Final = clock
        self._log: Final = Log("hsm.console")
        self._turn: Final = asyncio.Lock()
        self._acts: Final[set[asyncio.Task[Message]]] = set()
        self._anchored = 0
        self._ivs: Final = IvSource()
        self._activation: Final = Activation(vault, desk, derive=derive, tpm=tpm)
        self._performers: Final[dict[str, Perform]] = {
            console.APPLIANCE_INIT.name: self._init_appliance,
            console.APPLIANCE_SHOW.name: self._show_appliance,
            console.APPLIANCE_RESET_ADMIN.name: self._reset_admin,
            console.APPLIANCE_REIMAGE.name: self._reimage,
            console.HSM_INIT.name: self._init_hsm,
            console.HSM_SHOW.name: self._show_hsm,
            console.HSM_ACTIVATE.name: self._activate,
            console.HSM_DEACTIVATE.name: self._deactivate,
            **self._activation.performers(),
            console.HSM_FACTORY_RESET.name: self._factory_reset,
            console.HSM_PASSWORD.name: self._change_so_password,
            console.PACKAGE_INSTALL.name: self._install_package,
            console.PARTITION_CREATE.name: self._create_partition,
            console.PARTITION_LIST.name: self._list_partitions,
            console.PARTITION_DELETE.name: self._delete_partition,
            console.PARTITION_PASSWORD.name: self._change_officer_password,
            console.PARTITION_SEND.name: self._send_key,
            **{row.name: self._in_partition(name) for name, row in console.IN_PARTITION.items()},
            console.CLUSTER_CREATE.name: self._create_cluster,
            console.CONSOLE_CHECK.name: self._check,
            console.CONSOLE_CLUSTER.name: self._show_cluster,
            console.AUDIT_VERIFY.name: self._verify_audit,
            console.AUDIT_SHOW.name: self._show_audit,
            **belonging.performers(),
            **others,
        }

    def serve(self, server: Server) -> None:
        """Enter every operation of the local console."""
        for name in self._performers:
            self.serve_one(server, OPERATIONS[name])

    def serve_one(self, server: Server, operation: Operation[Any, Any]) -> None:
        """Enter one operation of the local console."""

        async def answer(call: Call, request: Message) -> Message:
            return await self.perform(operation, request)

        server.serve(operation, answer)

    async def perform(self, operation: Operation[Any, R], request: Message) -> R:
        """Carry out one operation; raises what `preconditions` and the act itself raise, AuditFailed."""
        if operation.effect is Effect.READ and not isinstance(request, console.AsCo):
            preconditions.check(operation.name, self._vault.situation)
            reply = await self._performers[operation.name](request)
        else:
            act = asyncio.ensure_future(self._act(operation, request))
            self._acts.add(act)
            act.add_done_callback(self._ended)
            reply = await asyncio.shield(act)
        assert isinstance(reply, operation.reply), f"{operation.name} answered {type(reply).__name__}"
        return reply

    async def finish(self, seconds: float) -> None:
        """Wait for acts that began, so many seconds at most."""
        if self._acts:
            await asyncio.wait(self._acts, timeout=seconds)
        await self._belonging.finish()

    def _ended(self, act: asyncio.Task[Message]) -> None:
        self._acts.discard(act)
        if not act.cancelled():
            act.exception()  # read here too: its asker may have gone

    async def _act(self, operation: Operation[Any, Any], request: Message) -> Message:
        async with self._turn:
            name = operation.name
            try:
                preconditions.check(name, self._vault.situation)
            except LnhError as error:
                self._record(name, request, _outcome(error))
                raise
            self._record(name, request, "begun")
            try:
                reply = await self._performers[name](request)
            except Exception as error:
                self._record(name, request, _outcome(error))
                raise
            try:
                self._record(name, request, "ok", reply)
            except AuditFailed as error:
                raise AuditFailed(f"{name} was done, and the audit trail holds its beginning only: {error}") from error
            return reply

    def _record(self, operation: str, request: Message, outcome: str, reply: Message | None = None) -> None:
        self._desk.record_act(operation, _role(request), _target(request, reply), outcome)

    # --- the appliance

    async def _init_appliance(self, request: console.InitAppliance) -> Empty:
        user = User(name=request.admin, role=preconditions.ADMIN, password=await self._desk.keep(request.password))
        if self._vault.state is None:
            self._vault.change_appliance(lambda now: replace(now, initialised=True, waiting=(*now.waiting, user)))
            return Empty()
        self._vault.change(lambda state: replace(state, users=(*state.users, user)))
        self._vault.change_appliance(lambda now: replace(now, initialised=True))
        return Empty()

    async def _show_appliance(self, _: Empty) -> console.ApplianceView:
        now = self._vault.situation
        cluster = now.state.cluster if now.state else None
        users = tuple(user.name for user in now.users)
        if cluster and cluster.phase is Phase.CREATED:
            users = await self._contents.users_of(cluster)
        return console.ApplianceView(
            name=self._surroundings.name,
            initialised=now.appliance.initialised,
            users=users,
            packages=now.state.packages if now.state else now.appliance.packages,
        )

    async def _reset_admin(self, request: console.ResetAdmin) -> Empty:
        await self._desk.authorise(request)
        kept = await self._desk.keep(request.password)
        cluster = self._vault.opened.cluster
        if cluster and cluster.phase is Phase.CREATED:
            await self._contents.reset_admin(cluster, request.admin, kept)
        else:
            self._vault.change(
                lambda state: replace(state, users=preconditions.reset_password(state.users, request.admin, kept))
            )
        return Empty()

    async def _reimage(self, _: Empty) -> Empty:
        state = self._vault.state
        may_hold_cluster = state is None or state.cluster is not None
        await self._desk.stop_workers()
        self._desk.sign()
        self._vault.reimage()  # the keys first: without them what the store holds says nothing
        if may_hold_cluster:
            await self._contents.destroy()
        return Empty()

    # --- the HSM

    async def _init_hsm(self, request: console.InitHsm) -> console.Initialised:
        so = Verifier(password=await self._desk.keep(request.so_password))
        drawn = "" if request.domain else secrets.token_hex(_DOMAIN_BYTES)
        state = HsmState(
            label=request.label,
            identity=secrets.token_bytes(KEY_BYTES),
            so=so,
            domain=request.domain or drawn,
        )
        cover = self._vault.new_cover(request.label, state.identity_public())
        key = await self._derive(cover.derivation(request.activation))
        self._vault.initialise(state, cover, key)
        return console.Initialised(identity=channel.fingerprint(cover.identity), domain=drawn)

    async def _show_hsm(self, _: Empty) -> console.HsmView:
        now = self._vault.situation
        cover = self._vault.cover
        cluster = now.state.cluster if now.state else None
        created = cluster and cluster.phase is Phase.CREATED
        return console.HsmView(
            state=now.name,
            label=cover.label if cover else "",
            identity=channel.fingerprint(cover.identity) if cover else "",
            locked_memory=self._surroundings.hardening.locked_memory,
            workers=self._desk.workers_running,
            partitions=len(now.state.partitions) if now.state else 0,
            cluster=cluster.label if cluster and created else "",
            advice=(*self._surroundings.hardening.problems, *self._surroundings.advice),
            damaged=self._surroundings.damage.cause(cluster.member) if cluster else "",
            shares_needed=cover.split.threshold if cover and cover.split else 0,
            tpm=bool(cover and cover.tpm),
            tpm_pcrs=cover.tpm.pcrs if cover and cover.tpm else (),
        )

    async def _activate(self, request: console.Activate) -> Empty:
        cover = self._vault.cover
        assert cover is not None, "an initialised HSM has a cover"
        self._vault.activate(await self._activation.key(cover, request))
        self._surroundings.damage.lift()
        self._surroundings.seen.clear()
        self._desk.sign()
        self._desk.start_workers()
        self._belonging.go_on()
        return Empty()

    async def _deactivate(self, request: console.Activate) -> Empty:
        cover = self._vault.cover
        assert cover is not None, "an activated HSM has a cover"
        if not self._vault.is_key(await self._activation.key(cover, request)):
            raise ActivationFailed("that is not the activation secret")
        await self._desk.stop_workers()
        self._desk.sign()
        self._vault.deactivate()
        return Empty()

    async def _factory_reset(self, request: console.AsSo) -> Empty:
        await self._desk.authorise(request)
        await self._desk.stop_workers()
        try:
            if self._vault.opened.cluster:
                await self._contents.destroy()
        except LnhError:
            self._desk.start_workers()
            raise
        self._desk.sign()
        self._vault.factory_reset()
        return Empty()

    async def _change_so_password(self, request: console.ChangeSoPassword) -> Empty:
        credentials.check_password(request.new)
        await self._desk.authorise(request)
        so = Verifier(password=await self._desk.keep(request.new))
        self._vault.change(lambda state: replace(state, so=so))
        return Empty()

    async def anchor(self) -> None:
        """Bring the newest head into the replicated log, if there is a cluster.

        Raises what the store answers, and AuditFailed where the trail lacks the head that was kept when the core
        started: that one then stays, since `verify` finds the loss by it.
        """
        state, head = self._vault.state, self._trail.head
        cluster = state.cluster if state else None
        if state is None or cluster is None or cluster.phase is not Phase.CREATED or head is None:
            return
        if head.index == self._anchored or head.signer != state.identity_public().hex():
            return
        kept = await self._contents.fetch(anchor.key_of(cluster.member))
        if kept and not self._anchored:
            await self._check_trail_holds(kept, state.identity_public())
        await self._contents.ask(store.COMMIT, anchor.commit(head, cluster.member, kept, int(self._clock() * 1000)))
        self._anchored = head.index

    async def _check_trail_holds(self, kept: store.Item, public: bytes) -> None:
        try:
            head = anchor.read(kept, public)
        except SealBroken:
            return  # of no trail of this HSM
        if not await asyncio.to_thread(audit.holds, self._surroundings.trail_path, head):
            raise AuditFailed(
                f"the audit trail lacks lines up to {head.index}, of which the cluster's log holds the head; "
                "`lnh audit verify` says more",
                {"advice": "keep the files log/audit*.jsonl of this member as they are, as evidence"},
            )

    # --- packages and partitions

    async def _install_package(self, request: console.InstallPackage) -> Empty:
        await self._desk.authorise(request)
        self._vault.change(lambda state: preconditions.install(state, request.name))
        return Empty()

    async def _create_partition(self, request: console.CreatePartition) -> console.PartitionView:
        await self._desk.authorise(request)
        partition = Partition(
            label=request.label,
            version=request.version,
            serial=create.new_serial(),
            po=Verifier(password=await self._desk.keep(request.po_password)),
            co=Verifier(password=await self._desk.keep(request.co_password)),
            key=secrets.token_bytes(KEY_BYTES),
        )
        return self._views(self._vault.change(lambda state: preconditions.add_partition(state, partition)))[-1]

    async def _list_partitions(self, _: Empty) -> console.Partitions:
        return console.Partitions(partitions=self._views(self._vault.opened))

    def _views(self, state: HsmState) -> tuple[console.PartitionView, ...]:
        return preconditions.views(state, lambda serial: len(self._vault.partitions.read(serial)))

    async def _delete_partition(self, request: console.PartitionRef) -> Empty:
        await self._desk.authorise(request)
        self._vault.remove_partition(request.label)
        return Empty()

    async def _change_officer_password(self, request: console.ChangeOfficerPassword) -> Empty:
        credentials.check_password(request.new)
        await self._desk.authorise_officer(request.label, request.officer, request.password)
        kept = Verifier(password=await self._desk.keep(request.new))
        self._vault.change(lambda state: preconditions.with_officer(state, request.label, request.officer, kept))
        return Empty()

    async def _send_key(self, request: console.SendKey) -> objects.Result:
        await self._desk.authorise(console.AsSo(so_password=request.so_password))
        partition = await self._desk.authorise_co(request)
        stored = self._vault.partitions.read(partition.serial)
        return Contents(partition, stored, self._ivs, self._clock()).send(request)

    def _in_partition(self, name: str) -> Perform:
        """Make the function that carries out an operation on objects as a partition's CO."""

        async def perform(request: console.InPartition[Message]) -> Message:
            partition = await self._desk.authorise_co(request)
            files = self._vault.partitions
            contents = Contents(partition, files.read(partition.serial), self._ivs, self._clock())
            # In a thread: an RSA key takes its time, and the workers' questions do not wait for it.
            reply = await asyncio.to_thread(contents.perform, name, request.request)
            if console.IN_PARTITION[name].effect is Effect.WRITE:
                files.write(partition.serial, contents.stored.values())
            return reply

        return perform

    # --- the cluster

    async def _create_cluster(self, request: console.CreateCluster) -> console.CreatedCluster:
        await self._desk.authorise(request)
        cluster = self._vault.opened.cluster
        if cluster is None:
            await self._contents.check_empty()
            po = await self._desk.keep(request.po_password)
            now = int(self._clock())
            self._vault.change(lambda state: create.begin(state, request.label, po, now))
        else:
            await self._check_same(cluster, request)
        cluster = await self._found(self._vault.opened)
        self._vault.change(create.finished)
        self._desk.sign()
        self._desk.start_workers()
        return console.CreatedCluster(
            cluster=cluster.id.hex(), fingerprint=channel.fingerprint(cluster.identity_public())
        )

    async def _found(self, state: HsmState) -> Cluster:
        assert state.cluster is not None, "a cluster that is being created"
        here = self._surroundings
        member = store.MemberInfo(
            id=state.cluster.member, name=here.name, host=here.host, port=here.port, key=here.key()
        )
        return await self._contents.found(state, member, here.lease_ms)

    async def _check_same(self, cluster: Cluster, request: console.CreateCluster) -> None:
        create.check_same(cluster, request.label)
        assert cluster.po is not None, "a cluster that is being created has its PO here"
        if not cluster.po.is_from(await self._derive(cluster.po.derivation(request.po_password))):
            raise PasswordIncorrect("the cluster was begun with another PO password; finish it with that one")

    async def _check(self, request: console.Check) -> Empty:
        preconditions.check_target(request.operation, request.target, self._vault.situation)
        if request.operation == console.CLUSTER_JOIN.name and request.target:
            Invitation.parse(request.target)
        return Empty()

    async def _show_cluster(self, _: Empty) -> console.ConsoleCluster:
        now = self._vault.situation
        if now.initialised and now.state is None:
            raise NotActivated("the HSM is not activated, so the cluster it serves is sealed")
        cluster = now.state.cluster if now.state else None
        if cluster is None or cluster.phase is not Phase.CREATED:
            return console.ConsoleCluster(
                created=False,
                phase=cluster.phase.value if cluster else "",
                expelled=now.state.expelled if now.state else "",
            )
        return console.ConsoleCluster(
            created=True,
            phase=cluster.phase.value,
            member=cluster.member.hex(),
            label=cluster.label,
            cluster=cluster.id.hex(),
            fingerprint=channel.fingerprint(cluster.identity_public()),
            door=self._surroundings.door,
        )

    # --- the audit trail

    async def _verify_audit(self, _: Empty) -> console.AuditReport:
        cover = self._vault.cover
        public = cover.identity if cover else None
        head, problem = None, ""
        try:
            head = await self._anchored_head(public)
        except SealBroken as error:
            problem = str(error)
        except (Unreachable, DeadlineExceeded) as error:  # the report then says that nothing is anchored
            self._log.warning("anchored head not read", problem=str(error))
        reading = audit.Reading(self._surroundings.trail_path, self._trail.position.index)
        report = await asyncio.to_thread(reading.verify, public, head)
        return replace(report, problem=report.problem or problem)

    async def _anchored_head(self, public: bytes | None) -> HeadLine | None:
        cluster = self._vault.state.cluster if self._vault.state else None
        if public is None or cluster is None or cluster.phase is not Phase.CREATED:
            return None
        item = await self._contents.fetch(anchor.key_of(cluster.member))
        return anchor.read(item, public) if item else None

    async def _show_audit(self, request: console.AuditPage) -> console.AuditRecords:
        # In a thread: a segment may have half a million lines, and the workers' questions do not wait for it.
        path, trail = self._surroundings.trail_path, audit.page
        return console.AuditRecords(records=await asyncio.to_thread(trail, path, request.after, request.limit))


def _role(request: Message) -> str:
    match request:
        case console.AsSo() | console.SendKey():
            return SO
        case console.AsCo():
            return console.Officer.CO.name
        case console.ChangeOfficerPassword():
            return request.officer.name
    return ""


def _target(request: Message, reply: Message | None) -> str:
    """Name what an act is about, for the trail: a name or handle that it carries or made, never a secret."""
    if isinstance(request, console.InPartition):
        asked, made = request.request, reply
        if isinstance(reply, objects.KeyPair):
            made = reply.private
        elif isinstance(reply, objects.Encapsulated):
            made = reply.key
        named = (getattr(asked, "handle", b""), getattr(asked, "key", b""), getattr(made, "handle", b""))
        return "/".join((request.partition, *dict.fromkeys(handle.hex() for handle in named if handle)))
    if isinstance(request, console.SendKey):
        return f"{request.partition}/{request.handle.hex()}"
    for name in ("admin", "label", "name"):
        value = getattr(request, name, None)
        if isinstance(value, str):
            return value
    return ""


def _outcome(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, LnhError) else "Internal"
