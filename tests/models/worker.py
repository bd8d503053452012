"""A pure hsm worker with a client beside it: no process, no socket, no clock; the channel is the real one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import lnh_common
from lnh_common.errors import LnhError, MemberReadOnly
from lnh_common.messages import admin, hsm, objects, session, store
from lnh_common.messages.base import Effect, Empty, Message, Operation, Q, R
from lnh_common.messages.session import ChangePassword, Credential, LoggedIn, Login, Register, Role
from lnh_common.messages.store import OBJECTS
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.versions import minor
from lnh_common.wire import channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import Envelope, SessionKeys, Statement
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.effects import Ask, Deadline, Peer, Steps, Turn, Work
from lnh_services.hsm.records import (
    ClusterRecord,
    PolicyRecord,
    Records,
    UserRecord,
    record_id,
)
from lnh_services.hsm.worker.core import CLUSTER_RECORD, WorkerCore
from lnh_services.hsm.worker.handlers.session import check_token
from lnh_services.hsm.worker.handlers.table import SERVED
from lnh_services.hsm.worker.policies import policy_id
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from models.carried import sample
from models.storage import DictStore

T = TypeVar("T")

_PLAIN: Final = (Peer.MEMBERSHIP, Peer.BALANCER, Peer.BACKUP)  # whose answers a worker passes on

ADMIN_PASSWORD = "admin password"
PO_PASSWORD = "partition owner"
KRSO = "the security officer"
KRCO = "the crypto officer"
START = 1_700_000_000.0


def derived(password: bytes, salt: bytes) -> bytes:
    """Stands in for Argon2id, which runs in a process of its own: the worker only ever sees its 32 bytes."""
    return hashlib.sha256(salt + password).digest()


def material(password: str) -> credentials.Material:
    derivation = credentials.derivation(password)
    return credentials.material(derivation, derived(derivation.password, derivation.salt))


class World:
    """One store and any number of workers of one cluster, in virtual time."""

    def __init__(self) -> None:
        self.now = START
        self.store = DictStore()
        self.asked = 0  # of the store
        self.read_only = False  # it takes no writes
        self.damage: list[str] = []  # that workers told of
        self.offline_attempts: OfflineAttempts | None = None
        self.audit: list[hsm.AuditEntry] = []
        self.seen = HighestSeen()
        self.cluster = os.urandom(16)
        self.identity = Ed25519PrivateKey.generate()
        self.secrets = hsm.WorkerSecrets(
            cluster=self.cluster,
            label="test",
            member=os.urandom(16),
            member_name="a",
            member_key=os.urandom(32),
            identity=self.identity.private_bytes_raw(),
            channel=(hsm.ChannelSeed(epoch=1, seed=os.urandom(32), end=int(START) + 86400),),
            smk=(hsm.SmkGeneration(generation=1, key=os.urandom(32)),),
        )
        self.workers: list[WorkerCore] = []
        self._found()

    def _found(self) -> None:
        smk = credentials.Smk(1, self.secrets.smk[0].key)
        records = Records(Purpose.RECORD.derive(smk.key), self.cluster, os.urandom(16))
        cluster = ClusterRecord(
            id=self.cluster,
            label="test",
            instance=records.instance,
            created_at=int(START),
            product=minor(lnh_common.VERSION),
        )
        admin = credentials.new_record(
            material(ADMIN_PASSWORD), role=Role.USER, smk=smk, cluster=self.cluster, now=int(START), name="admin"
        )
        po = credentials.new_record(material(PO_PASSWORD), role=Role.PO, smk=smk, cluster=self.cluster, now=int(START))
        changes = (
            records.put(cluster, CLUSTER_RECORD, 0),
            records.put(UserRecord(name="admin", role="admin"), record_id("user", "admin"), 0),
            records.put(admin, credentials.credential_id(Role.USER, "admin"), 0),
            records.put(po, credentials.credential_id(Role.PO), 0),
            records.put(PolicyRecord(keyring=b"", fields={}), policy_id(), 0),
        )
        commit = store.Commit(
            client=self.cluster, session=self.cluster, sequence=1, issued_at=int(START * 1000), changes=changes
        )
        self.store.answer(commit, int(START * 1000))

    def set_version(self, product: str) -> None:
        """Give the cluster another version, as an order of another member would."""
        bare = Records(Purpose.RECORD.derive(self.secrets.smk[0].key), self.cluster, b"")
        item = self.store.storage.items[store.CLUSTER.table, b"", store.CLUSTER.id]
        changed = msgspec.structs.replace(bare.read(ClusterRecord, item), product=product)
        change = bare.put(changed, CLUSTER_RECORD, item.version)
        by = os.urandom(16)
        commit = store.Commit(client=by, session=by, sequence=1, issued_at=int(self.now * 1000), changes=(change,))
        self.answer(Ask(Peer.STORE, store.COMMIT, commit))

    def renew_instance(self) -> None:
        """What a restore does to the sessions of before: the same records, of another instance."""
        items = self.store.storage.items
        old = Records(Purpose.RECORD.derive(self.secrets.smk[0].key), self.cluster, b"")
        key = old.key_of(ClusterRecord, CLUSTER_RECORD)
        cluster = old.read(ClusterRecord, items[key.table, key.scope, key.id])
        new = Records(old.key, self.cluster, os.urandom(16))
        for at, item in list(items.items()):
            if item.key == key:
                kept = codec.encode(msgspec.structs.replace(cluster, instance=new.instance))
                mac = old._mac(key, item.version, kept)
                items[at] = msgspec.structs.replace(item, head=kept, body=mac)
            elif item.key.table != OBJECTS:
                items[at] = msgspec.structs.replace(item, body=new._mac(item.key, item.version, item.head))
        for worker in self.workers:
            worker.invalidate(store.Invalidate(sequence=0, keys=(), everything=True))
            self.attach(worker)

    def attach(self, worker: WorkerCore, *, read_write: bool = True) -> None:
        worker.take_lease(self.now, store.Attached(lease_ms=10**9, index=0, fresh=True, read_write=read_write))

    def worker(self) -> WorkerCore:
        made = WorkerCore(SERVED, check_token, lambda: self.now, lambda: self.now)
        made.take_secrets(self.secrets)
        self.attach(made)
        self.workers.append(made)
        return made

    def answer(self, asked: Ask) -> Message:
        message = asked.message
        if asked.peer is Peer.STORE:
            self.asked += 1
            if self.read_only and isinstance(message, store.Commit):
                raise MemberReadOnly("this member is cut off from its primary")
            before = len(self.store.invalidated)
            try:
                return self.store.answer(message, int(self.now * 1000))
            finally:
                for keys in self.store.invalidated[before:]:
                    for worker in self.workers:
                        worker.invalidate(store.Invalidate(sequence=before, keys=tuple(keys)))
        if isinstance(message, hsm.LoginAttempt):
            if self.offline_attempts is None and message.step is hsm.AttemptStep.CHECK:
                return Empty()
            assert self.offline_attempts is not None, "no file of this member's own was given"
            self.offline_attempts.note(message, int(self.now))
            return Empty()
        if asked.operation is hsm.FAILED_ATTEMPTS:
            return hsm.AllFailedAttempts(
                failed=self.offline_attempts.all() if self.offline_attempts is not None else ()
            )
        if isinstance(message, hsm.FailedAttempts):
            assert self.offline_attempts is not None, "it was told of some"
            self.offline_attempts.told(message)
            return Empty()
        if isinstance(message, hsm.AttachWorker):
            return self.secrets
        if isinstance(message, hsm.Damage):
            self.damage.append(message.cause)
            return Empty()
        if isinstance(message, hsm.Derive):
            return hsm.Derived(key=derived(message.password, message.salt))
        if isinstance(message, hsm.Seen):
            return hsm.Highest(highest=tuple(self.seen.note(message.marks)))
        if isinstance(message, hsm.Audit):
            self.audit.extend(message.entries)
            return hsm.Audited(index=len(self.audit))
        if asked.peer in _PLAIN:
            return cast("Message", sample(asked.operation.reply))
        raise AssertionError(f"nobody plays {asked.peer}")

    def work(self, asked: Work) -> object:
        """What a thread does for the real worker."""
        return asked.compute()

    def serve(self, worker: WorkerCore, frames: wire.Frames, *, forwarded: bool = False) -> wire.Frames:
        header = wire.Header.parse(frames[0])
        return self.run(worker.serve(header, frames[1], frames[2], Deadline(self.now + 10), forwarded=forwarded))

    def run(self, steps: Steps[T]) -> T:
        try:
            asked = steps.send(None)
            while True:
                if isinstance(asked, Turn):
                    asked = steps.send(None)
                    continue
                try:
                    answer = self.work(asked) if isinstance(asked, Work) else self.answer(asked)
                except LnhError as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(answer if isinstance(asked, Work) or asked.waits else None)
        except StopIteration as done:
            return cast("T", done.value)


@dataclass
class Client:
    """The SDK's side of the channel, in a few lines."""

    world: World
    worker: WorkerCore
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    id: bytes = b""
    token: bytes = b""
    secret: bytes = b""
    connection: bytes = field(default_factory=lambda: os.urandom(16))
    sequence: int = 0
    request_id: int = 0

    def hello(self) -> Statement:
        self.request_id += 1
        header = wire.request(session.HELLO.name, self.request_id, 1000)
        answer = self.world.serve(self.worker, [header.pack(), b"", codec.encode(Empty())])
        welcome = codec.decode_as(answer[2], session.Welcome)
        public = self.world.identity.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert welcome.identity == public
        return Statement.verify(welcome.statement, welcome.signature, public)

    def envelope(self, operation: Operation[Any, Any], message: Message) -> Envelope:
        if operation.effect is Effect.WRITE:
            self.sequence += 1
        fields = codec.decode(codec.encode(message))
        sequence = self.sequence if operation.effect is Effect.WRITE else 0
        return Envelope(int(self.world.now * 1000), 10_000, self.connection, sequence, fields)

    def sealed(
        self, operation: Operation[Any, Any], message: Message, route: bytes = b""
    ) -> tuple[wire.Frames, SessionKeys]:
        """The frames of a request, to be sent once, twice, or changed."""
        self.request_id += 1
        header = wire.request(operation.name, self.request_id, 10_000, route=route)
        envelope = self.envelope(operation, message)
        if operation.seal.name == "CREDENTIAL":
            self.secret = os.urandom(32)
            body = channel.seal_credential(header, envelope, self.hello(), self.secret, self.id, self.key)
            return [header.pack(), b"", body], SessionKeys.derive(self.secret, b"")
        keys = SessionKeys.derive(self.secret, self.token)
        return [header.pack(), self.token, channel.seal_request(keys, header, envelope)], keys

    def open(self, operation: Operation[Q, R], sent: wire.Frames, keys: SessionKeys, answer: wire.Frames) -> R:
        header = wire.Header.parse(answer[0])
        if header.kind is wire.Kind.ERROR:
            raise wire.parse_error(answer[2])
        fields = channel.open_reply(keys, wire.Header.parse(sent[0]), sent[2], answer[2])
        return codec.convert(fields, operation.reply)

    def ask(self, operation: Operation[Q, R], message: Q, route: bytes = b"") -> R:
        sent, keys = self.sealed(operation, message, route)
        return self.open(operation, sent, keys, self.world.serve(self.worker, sent))

    def login(self, *given: Credential) -> LoggedIn:
        self.token = b""
        logged_in = self.ask(session.LOGIN, Login(credentials=given))
        self.token = logged_in.token
        return logged_in

    def as_administrator(self) -> Client:
        """Another connection of nobody's machine, logged in as admin and PO."""
        other = Client(self.world, self.worker)
        other.login(
            Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD),
            Credential(role=Role.PO, password=PO_PASSWORD),
        )
        return other

    def register(self, name: str = "client") -> Client:
        message = Register(
            administrator=Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD),
            name=name,
            curve_key=os.urandom(32),
            sign_key=self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        )
        self.id = self.ask(session.REGISTER, message).client
        return self


def make_keyring(client: Client, label: str = "payments") -> bytes:
    """A keyring whose KRSO and KRCO have their own passwords."""
    administrator = client.as_administrator()
    made = administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label=label))
    keyring = made.keyrings[0].id
    administrator.ask(admin.ROLE_INIT, admin.InitRole(keyring=keyring, password="a first password"))
    first = Credential(role=Role.KRSO, keyring=keyring, password="a first password")
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=first, new=KRSO))
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    client.ask(admin.ROLE_SET, admin.SetRole(password=KRCO), keyring)
    return keyring


def generate_ec(client: Client, keyring: bytes) -> objects.KeyPair:
    """A P-256 key pair labelled `ca`."""
    label = {Attribute.LABEL.value: "ca"}
    template: dict[int, Any] = {Attribute.EC_PARAMS.value: CURVES["P-256"].oid, **label}
    return client.ask(
        objects.GENERATE_PAIR,
        objects.GenerateKeyPair(mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=template, private_template=label),
        keyring,
    )


def sign(client: Client, keyring: bytes, handle: bytes, data: bytes = b"data") -> bytes:
    """A P-256 signature."""
    use = objects.Use(handle=handle, mechanism=Mechanism.ECDSA_SHA256, data=data)
    return client.ask(objects.SIGN, use, keyring).data
