"""Whatever a store answers, no operation acts on a record that it did not ask for.

Every operation of the table is carried out once with a store that answers truly, and then once for every lie about
every look-up that it made (`models/lying_store.py`). It ends as it did, or is refused; nothing else is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pytest

import lnh_services.hsm
from lnh_common import errors
from lnh_common.errors import LnhError
from lnh_common.messages import admin, audit, backup, hsm, membership, objects, overview, session, smk
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import ChangePassword, Credential, Login, Logout, Register, Role
from lnh_common.messages.store import Get, Gets, Got, Gots, Item, Scan
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import codec
from lnh_services.hsm.effects import Ask, Peer
from lnh_services.hsm.records import (
    TABLES,
    ClientRecord,
    KeyringRecord,
    LockRecord,
    PolicyRecord,
    RoleRecord,
    UserRecord,
)
from lnh_services.hsm.worker.handlers.table import SERVED
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from models.carried import sample
from models.lying_store import Lie, Place, lies
from models.worker import ADMIN_PASSWORD, KRCO, KRSO, PO_PASSWORD, Client, World, make_keyring

EVE = "what eve knows"
ADMIN: Final = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
AS_EVE: Final = Credential(role=Role.USER, name="eve", password=EVE)
# Refusals for want of what a store left out, or kept back.
ABSENT: Final = (
    errors.NameUnknown, errors.KeyringUnknown, errors.ClientUnknown, errors.ClientRevoked, errors.ObjectUnknown,
    errors.CredentialChanged, errors.PasswordIncorrect, errors.NoCluster, errors.VersionConflict, errors.NotPossible,
)  # fmt: skip
# The last of what was done before something false was met: it is done, and what goes with it is not.
REFUSED: Final = (errors.SealBroken, errors.StateRolledBack, errors.OutcomeUnknown)
# What every attempt at a password writes, whatever comes of it.
COUNTED: Final = frozenset({TABLES[LockRecord], "attempt"})
# Of what these change, each field is compared; the others' records hold what is drawn at random.
COMPARED: Final = (ClientRecord, KeyringRecord, UserRecord, RoleRecord, PolicyRecord)
# Their answers hold something drawn at random, or what others say: of them the type is compared.
DRAWN: Final = frozenset(
    operation.name
    for operation in (
        session.LOGIN, session.RENEW, objects.RANDOM, objects.ENCRYPT, objects.GENERATE_PAIR, objects.GENERATE_PAIRS,
        objects.GENERATE, objects.GENERATE_MANY, objects.GENERATE_IN_SESSION, objects.GENERATE_PAIR_IN_SESSION,
        objects.CREATE, objects.CREATE_IN_SESSION, objects.COPY, objects.UNWRAP, objects.UNWRAP_IN_SESSION,
        objects.DERIVE, objects.DERIVE_IN_SESSION, objects.ENCAPSULATE, objects.ENCAPSULATE_IN_SESSION,
        objects.DECAPSULATE,
        objects.DECAPSULATE_IN_SESSION, objects.ENCRYPT_MANY, objects.STREAM,
    )
)  # fmt: skip


KW: Final = Mechanism.AES_KEY_WRAP
HKDF: Final = Mechanism.HKDF_DERIVE


_OF_THE_CORE: Final = (backup.ALLOW, smk.MAKE_SMK_BACKUP, smk.ROLL_SMK, smk.RETIRE_SMKS, audit.READ_TRAIL)


class Stage(World):
    """A world whose store tells `lie`, and that remembers what was looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.lie: Lie | None = None
        self.looked_up: list[tuple[Get | Scan, Message]] = []

    def answer(self, asked: Ask) -> Message:
        if asked.operation is hsm.INVITE:
            return hsm.Invited(text="an invitation", expires=9, identity="SHA256:x")
        if asked.peer is Peer.CORE and asked.operation in _OF_THE_CORE:
            return cast("Message", sample(asked.operation.reply))
        true = super().answer(asked)
        message = asked.message
        if isinstance(true, membership.View):
            return msgspec.structs.replace(true, members=(msgspec.structs.replace(true.members[0], door=bytes(32)),))
        if isinstance(message, Gets):
            assert isinstance(true, Gots)
            told = [cast("Got", self._told(get, got)) for get, got in zip(message.gets, true.gots, strict=True)]
            return Gots(gots=tuple(told))
        return self._told(message, true)

    def _told(self, message: Message, true: Message) -> Message:
        if isinstance(message, Get | Scan):
            self.looked_up.append((message, true))
            if self.lie is not None and self.lie.about(message):
                return self.lie.tell(true)
        return true


@dataclass(frozen=True)
class Request:
    """An operation, asked by one of the sessions of `Scene`."""

    operation: Operation[Any, Any]
    message: Message
    by: str = "admin"
    of_keyring: bool = False


@dataclass
class Outcome:
    """How a request ended, and what it left."""

    reply: Any
    error: LnhError | None
    changed: dict[Place, Item | None]

    def of_records(self) -> dict[Place, Any]:
        """What changed, but for what is counted; of records without anything drawn, each field."""
        compared = {TABLES[kind] for kind in COMPARED}
        return {
            place: repr(codec.decode(item.head)) if item is not None and place[0] in compared else item is None
            for place, item in self.changed.items()
            if place[0] not in COUNTED
        }


class Scene:
    """A cluster with two of everything, sessions of all kinds, and a way back to how it was."""

    def __init__(self) -> None:
        self.world = world = Stage()
        client = Client(world, world.worker()).register()
        administrator = client.as_administrator()
        for name, role in (("eve", "monitor"), ("second", "admin"), ("ops", "operator")):
            administrator.ask(admin.USER_ADD, admin.AddUser(name=name, role=role, password=EVE))
        for name in ("clerk", "unused"):
            administrator.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name=name, permissions=(admin.Permission.VIEW,)))
        helps = (admin.Permission.USERS, admin.Permission.VIEW)
        administrator.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name="helpdesk", permissions=helps))
        for name, role in (("carla", "clerk"), ("hugo", "helpdesk")):
            administrator.ask(admin.USER_ADD, admin.AddUser(name=name, role=role, password=EVE))
        self.keyring = make_keyring(client, "payments")
        self.other = make_keyring(client, "other")
        self.assigned = make_keyring(client, "assigned")
        self.rekeyed = make_keyring(client, "rekeyed")
        self._keys(client, self.rekeyed)
        krso = replace(client)
        krso.login(Credential(role=Role.KRSO, keyring=self.keyring, password=KRSO))
        krso.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 100}), self.keyring)
        self.public, self.key, self.cipher = self._keys(client, self.keyring)
        self._keys(client, self.other)
        self.wrapping, self.wrapped, self.base, self.readable, self.sealing, self.opening = self._others(
            client, self.keyring
        )
        self._before = dict(world.store.storage.items)
        others = [Client(world, world.worker()).register(name) for name in ("second", "third")]
        for name in ("second", "third"):
            administrator.ask(admin.CLIENT_ASSIGN, admin.Assignment(client=name, keyring=self.assigned))
        administrator.ask(admin.CLIENT_REVOKE, admin.ClientRef(client="third"))
        administrator.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 200}))
        krso.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 50}), self.keyring)
        for keyring in (self.keyring, self.other):
            again = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
            client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=again, new=KRCO))
        officer = Credential(role=Role.KRSO, keyring=self.rekeyed, password=KRSO)
        self._session(client, officer).ask(admin.KEYRING_REKEY, Empty(), self.rekeyed)
        krco = self._session(client, Credential(role=Role.KRCO, keyring=self.keyring, password=KRCO))
        relabel = objects.SetAttributes(handle=self.key, template={Attribute.LABEL.value: "new"})
        krco.ask(objects.SET, relabel, self.keyring)
        use = objects.Use(handle=self.cipher, mechanism=Mechanism.AES_GCM, data=b"data")
        self.encrypted = krco.ask(objects.ENCRYPT, use, self.keyring)
        sign = objects.Use(handle=self.key, mechanism=Mechanism.EDDSA, data=b"data")
        self.signature = krco.ask(objects.SIGN, sign, self.keyring).data
        wrap = objects.Wrap(handle=self.wrapping, mechanism=KW, key=self.wrapped)
        self.blob = krco.ask(objects.WRAP, wrap, self.keyring).data
        template = {Attribute.KEY_TYPE.value: KeyType.AES.value}
        seals = objects.Derive(handle=self.sealing, mechanism=Mechanism.ML_KEM, template=template)
        self.ciphertext = krco.ask(objects.ENCAPSULATE, seals, self.keyring).ciphertext
        self.waits = self._waiting(administrator, client)
        self.sessions = {
            "admin": self._session(client, ADMIN, Credential(role=Role.PO, password=PO_PASSWORD)),
            "eve": self._session(client, AS_EVE),
            "deputy": self._session(client, Credential(role=Role.USER, name="second", password=EVE)),
            "carla": self._session(client, Credential(role=Role.USER, name="carla", password=EVE)),
            "hugo": self._session(client, Credential(role=Role.USER, name="hugo", password=EVE)),
            "krso": self._session(client, Credential(role=Role.KRSO, keyring=self.keyring, password=KRSO)),
            "krco": krco,
            "rekeys": self._session(client, officer),
            "client": self._session(client),
            "second": self._session(others[0]),
            "nobody": Client(world, client.worker),
            "machine": replace(client, token=b""),
        }
        self._items = dict(world.store.storage.items)
        self._seen = world.seen._ages.copy()
        self._sequence = max(each.sequence for each in self.sessions.values())

    def _waiting(self, administrator: Client, client: Client) -> bytes:
        """The id of what waits for a second person, from a time when the policy named it."""
        second = self._session(
            client,
            Credential(role=Role.USER, name="second", password=EVE),
            Credential(role=Role.PO, password=PO_PASSWORD),
        )
        administrator.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"dual_control": ["keyring.delete"]}))
        off = admin.PolicyChange(changes={"dual_control": []})
        with pytest.raises(errors.ApprovalNeeded) as waits:
            administrator.ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=self.other))
        with pytest.raises(errors.ApprovalNeeded) as refused:
            second.ask(admin.CLUSTER_POLICY, off)
        approval = bytes.fromhex(refused.value.detail["approval"])
        administrator.ask(admin.APPROVAL_APPROVE, admin.ApprovalRef(approval=approval))
        second.ask(admin.CLUSTER_POLICY, off)
        return bytes.fromhex(waits.value.detail["approval"])

    def _keys(self, client: Client, keyring: bytes) -> tuple[bytes, bytes, bytes]:
        """The handles of an Ed25519 key pair, public half first, and an AES key."""
        krco = self._session(client, Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
        template: dict[int, Any] = {Attribute.EC_PARAMS.value: CURVES["Ed25519"].oid}
        pair = objects.GenerateKeyPair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, public_template=template)
        made = krco.ask(objects.GENERATE_PAIR, pair, keyring)
        secret: dict[int, Any] = {Attribute.VALUE_LEN.value: 32, Attribute.LABEL.value: "cipher"}
        cipher = krco.ask(
            objects.GENERATE, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=secret), keyring
        )
        return made.public.handle, made.private.handle, cipher.handle

    def _others(self, client: Client, keyring: bytes) -> list[bytes]:
        """The handles of keys that wrap, are wrapped, derive, are readable, and of an ML-KEM pair, public half first."""
        krco = self._session(client, Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
        made = []
        for how, named in (
            (Mechanism.AES_KEY_GEN, {Attribute.WRAP: True, Attribute.UNWRAP: True}),
            (Mechanism.AES_KEY_GEN, {Attribute.EXTRACTABLE: True}),
            (Mechanism.GENERIC_SECRET_KEY_GEN, {Attribute.DERIVE: True}),
            (Mechanism.AES_KEY_GEN, {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}),
        ):
            template = {Attribute.VALUE_LEN.value: 32, **{name.value: value for name, value in named.items()}}
            asked = objects.GenerateKey(mechanism=how, template=template)
            made.append(krco.ask(objects.GENERATE, asked, keyring).handle)
        kem = objects.GenerateKeyPair(
            mechanism=Mechanism.ML_KEM_KEY_PAIR_GEN, public_template={Attribute.PARAMETER_SET.value: 2}
        )
        pair = krco.ask(objects.GENERATE_PAIR, kem, keyring)
        return [*made, pair.public.handle, pair.private.handle]

    @staticmethod
    def _session(client: Client, *credentials: Credential) -> Client:
        other = replace(client, connection=os.urandom(16), token=b"")
        other.login(*credentials)
        return other

    def carry_out(self, request: Request, lie: Lie | None = None) -> Outcome:
        """Ask a worker that has nothing cached, with everything as it was at the beginning."""
        world = self.world
        world.store.storage.items = dict(self._items)
        world.store.storage.records.clear()
        world.store.storage.marks.clear()
        world.seen = HighestSeen()
        world.seen._ages.update(self._seen)
        world.workers.clear()
        world.looked_up.clear()
        world.damage.clear()
        world.lie = lie
        client = replace(self.sessions[request.by], worker=world.worker(), sequence=self._sequence)
        reply, error = None, None
        keyring = self.rekeyed if request.by == "rekeys" else self.keyring
        try:
            reply = client.ask(request.operation, request.message, keyring if request.of_keyring else b"")
            if isinstance(reply, objects.Outcomes) and reply.outcomes[0][0]:  # of uses that came together
                raise LnhError.from_wire(reply.outcomes[0])
            if isinstance(reply, admin.Remark) and "the store was asked for" in reply.remark:
                raise errors.SealBroken(reply.remark)  # of what is kept beside an order: it is carried out, and says so
        except LnhError as refused:
            error = refused
        finally:
            world.lie = None
        after = world.store.storage.items
        places = {place for place in self._items.keys() | after.keys() if self._items.get(place) != after.get(place)}
        return Outcome(reply, error, {place: after.get(place) for place in places})

    def all_lies(self) -> Iterator[Lie]:
        """About each thing that was looked up since the last request was begun."""
        told = set()
        for asked, answer in list(self.world.looked_up):
            if asked not in told:
                told.add(asked)
                yield from lies(asked, answer, self._items, self._before)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def requests(scene: Scene) -> list[Request]:
    """What is asked: each operation, and where it is about what somebody may, somebody too who may not."""
    keyring, key = scene.keyring, scene.key
    krco = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    client_key = scene.sessions["client"].key
    register = Register(
        administrator=ADMIN, name="new", curve_key=bytes(32), sign_key=client_key.public_key().public_bytes_raw()
    )
    signs = objects.Use(handle=key, mechanism=Mechanism.EDDSA, data=b"data")
    aes: dict[int, Any] = {Attribute.VALUE_LEN.value: 32}
    ed25519: dict[int, Any] = {Attribute.EC_PARAMS.value: CURVES["Ed25519"].oid}
    pair: dict[str, Any] = {"mechanism": Mechanism.EC_EDWARDS_KEY_PAIR_GEN, "public_template": ed25519}
    in_session = {Attribute.TOKEN.value: False}
    data: dict[int, Any] = {Attribute.CLASS.value: ObjectClass.DATA.value}
    as_aes: dict[int, Any] = {
        Attribute.CLASS.value: ObjectClass.SECRET_KEY.value,
        Attribute.KEY_TYPE.value: KeyType.AES.value,
        Attribute.VALUE_LEN.value: 32,
    }
    member = admin.MemberRef(member=b"b" * 16)
    archive = backup.ArchiveRef(name=sample(backup.ArchiveRef).name)
    decrypts = objects.Use(
        handle=scene.cipher,
        mechanism=Mechanism.AES_GCM,
        data=scene.encrypted.data,
        parameters=codec.encode({"iv": scene.encrypted.iv}),
    )
    by_keyring: list[tuple[Operation[Any, Any], Message, str]] = [
        (objects.GENERATE, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=aes), "krco"),
        (objects.GENERATE_PAIR, objects.GenerateKeyPair(**pair), "krco"),
        (objects.GENERATE_MANY, objects.GenerateKeys(mechanism=Mechanism.AES_KEY_GEN, template=aes, total=2), "krco"),
        (objects.GENERATE_PAIRS, objects.GenerateKeyPairs(**pair, total=2), "krco"),
        (
            objects.GENERATE_IN_SESSION,
            objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=aes | in_session),
            "krco",
        ),
        (
            objects.GENERATE_PAIR_IN_SESSION,
            objects.GenerateKeyPair(
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                public_template=ed25519 | in_session,
                private_template=in_session,
            ),
            "krco",
        ),
        (objects.CREATE, objects.CreateObject(template=data, value=b"data"), "krco"),
        (objects.CREATE_IN_SESSION, objects.CreateObject(template=data | in_session, value=b"data"), "krco"),
        (objects.COPY, objects.Copy(handle=scene.cipher, template={Attribute.LABEL.value: "copy"}), "krco"),
        (objects.VALUE, objects.Show(handle=scene.readable), "krco"),
        (objects.WRAP, objects.Wrap(handle=scene.wrapping, mechanism=KW, key=scene.wrapped), "krco"),
        (objects.WRAP_MANY, objects.WrapMany(handle=scene.wrapping, mechanism=KW, keys=(scene.wrapped,)), "krco"),
        (objects.UNWRAP, objects.Unwrap(handle=scene.wrapping, mechanism=KW, template=as_aes, data=scene.blob), "krco"),
        (
            objects.UNWRAP_IN_SESSION,
            objects.Unwrap(handle=scene.wrapping, mechanism=KW, template=as_aes | in_session, data=scene.blob),
            "krco",
        ),
        (objects.DERIVE, objects.Derive(handle=scene.base, mechanism=HKDF, template=as_aes), "krco"),
        (
            objects.DERIVE_IN_SESSION,
            objects.Derive(handle=scene.base, mechanism=HKDF, template=as_aes | in_session),
            "krco",
        ),
        (
            objects.ENCAPSULATE,
            objects.Derive(handle=scene.sealing, mechanism=Mechanism.ML_KEM, template=as_aes),
            "krco",
        ),
        (
            objects.ENCAPSULATE_IN_SESSION,
            objects.Derive(handle=scene.sealing, mechanism=Mechanism.ML_KEM, template=as_aes | in_session),
            "krco",
        ),
        (
            objects.DECAPSULATE,
            objects.Decapsulate(
                handle=scene.opening, mechanism=Mechanism.ML_KEM, template=as_aes, data=scene.ciphertext
            ),
            "krco",
        ),
        (
            objects.DECAPSULATE_IN_SESSION,
            objects.Decapsulate(
                handle=scene.opening, mechanism=Mechanism.ML_KEM, template=as_aes | in_session, data=scene.ciphertext
            ),
            "krco",
        ),
        (objects.FIND, objects.Find(), "krco"),
        (objects.FIND, objects.Find(template={Attribute.LABEL.value: "cipher"}), "krco"),
        (objects.SHOW, objects.Show(handle=key), "krco"),
        (objects.SET, objects.SetAttributes(handle=key, template={Attribute.LABEL.value: "x"}), "krco"),
        (objects.DESTROY, objects.Destroy(handle=key), "krco"),
        (objects.SIGN, signs, "krco"),
        (objects.SIGN, objects.Use(handle=b"none" * 4, mechanism=Mechanism.EDDSA, data=b"data"), "krco"),
        (objects.SIGN_MANY, objects.UseMany(handle=key, mechanism=Mechanism.EDDSA, items=(b"a", b"b")), "krco"),
        (objects.VERIFY_MANY, objects.VerifyMany(handle=scene.public, mechanism=Mechanism.EDDSA, items=(b"a",), signatures=(b"s",)), "krco"),
        (objects.ENCRYPT_MANY, objects.UseMany(handle=scene.cipher, mechanism=Mechanism.AES_GCM, items=(b"a", b"b")), "krco"),
        (objects.DECRYPT_MANY, objects.UseMany(handle=scene.cipher, mechanism=Mechanism.AES_GCM, items=(bytes(28), b"b")), "krco"),
        (objects.ENCRYPT, objects.Use(handle=scene.cipher, mechanism=Mechanism.AES_GCM, data=b"data"), "krco"),
        (objects.DECRYPT, decrypts, "krco"),
        (objects.STREAM, objects.Part(stream=b"s" * 16, use=objects.StreamedUse.ENCRYPT, mechanism=Mechanism.AES_GCM, data=b"d", offset=0, handle=scene.cipher), "krco"),
        (objects.USES, objects.Uses(uses=((objects.SIGN.name, msgspec.to_builtins(signs, builtin_types=(bytes,))),)), "krco"),
        (objects.RANDOM, objects.RandomBytes(length=8), "krco"),
        (admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 20}), "krso"),
        (admin.ROLE_SET, admin.SetRole(password="another password"), "krso"),
        (admin.KEYRING_REKEY, Empty(), "krso"),
        (admin.KEYRING_RESEAL, Empty(), "rekeys"),
        (admin.KEYRING_REKEY_STATE, Empty(), "rekeys"),
        (objects.FIND, objects.Find(template={Attribute.LABEL.value: "cipher"}), "rekeys"),
        (admin.KEYRING_REKEY_STATE, Empty(), "krco"),
        (session.LOGOUT, Logout(), "krco"),
        (session.LOGOUT, Logout(everywhere=True), "krco"),
    ]  # fmt: skip
    return [
        *(Request(operation, message, by, of_keyring=True) for operation, message, by in by_keyring),
        Request(objects.VERIFY, objects.Verify(**msgspec.structs.asdict(signs) | {"handle": scene.public}, signature=scene.signature), "krco", of_keyring=True),
        Request(session.LOGIN, Login(credentials=(ADMIN,)), "nobody"),
        Request(session.LOGIN, Login(credentials=(Credential(role=Role.USER, name="admin", password=EVE),)), "nobody"),
        Request(session.LOGIN, Login(credentials=(Credential(role=Role.PO, password=EVE),)), "machine"),
        Request(session.LOGIN, Login(credentials=(krco,)), "machine"),
        Request(session.LOGIN, Login(credentials=(Credential(role=Role.KRSO, keyring=keyring, password=KRCO),)), "machine"),
        Request(session.LOGIN, Login(credentials=(Credential(role=Role.KRCO, keyring=scene.assigned, password=KRCO),)), "machine"),
        Request(session.LOGIN, Login(), "machine"),
        Request(session.REGISTER, register, "machine"),
        Request(session.REGISTER, msgspec.structs.replace(register, administrator=AS_EVE), "machine"),
        Request(session.REGISTER, msgspec.structs.replace(register, monitor="eve"), "machine"),
        Request(session.REGISTER, msgspec.structs.replace(register, monitor="nobody"), "machine"),
        Request(session.CHANGE_PASSWORD, ChangePassword(credential=AS_EVE, new="a new password"), "machine"),
        Request(session.CHANGE_PASSWORD, ChangePassword(credential=krco, new="a new password"), "machine"),
        Request(session.CHANGE_PASSWORD, ChangePassword(credential=Credential(role=Role.USER, name="admin", password=EVE), new="a new password"), "machine"),
        Request(session.RENEW, Empty(), "client"),
        Request(session.ENDPOINTS, Empty(), "client"),
        Request(admin.KEYRING_LIST, admin.ListKeyrings()),
        Request(admin.KEYRING_LIST, admin.ListKeyrings(), "client"),
        Request(admin.KEYRING_LIST, admin.ListKeyrings(label="payments"), "second"),
        Request(admin.KEYRING_SHOW, admin.KeyringRef(keyring=scene.assigned)),
        Request(admin.KEYRING_CREATE, admin.CreateKeyrings(label="new", total=2)),
        Request(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring)),
        Request(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring), "eve"),
        Request(admin.ROLE_INIT, admin.InitRole(keyring=keyring, password="a first password")),
        Request(admin.CLIENT_LIST, Empty()),
        Request(admin.CLIENT_LIST, Empty(), "eve"),
        Request(admin.CLIENT_REVOKE, admin.ClientRef(client="second")),
        Request(admin.CLIENT_REVOKE, admin.ClientRef(client="nobody")),
        Request(admin.CLIENT_ASSIGN, admin.Assignment(client="second", keyring=keyring)),
        Request(admin.CLIENT_ASSIGN, admin.Assignment(client="client", keyring=scene.assigned)),
        Request(admin.CLIENT_UNASSIGN, admin.Assignment(client="second", keyring=scene.assigned)),
        Request(admin.CLIENT_UNASSIGN, admin.Assignment(client="client", keyring=scene.assigned)),
        Request(admin.USER_ADD, admin.AddUser(name="new", role="monitor", password="a password")),
        Request(admin.USER_ADD, admin.AddUser(name="new", role="monitor", password="a password"), "eve"),
        Request(admin.USER_LIST, Empty()),
        Request(admin.USER_DELETE, admin.UserRef(name="second")),
        Request(admin.USER_DELETE, admin.UserRef(name="eve")),
        Request(admin.USER_ADD, admin.AddUser(name="new", role="clerk", password="a password")),
        Request(admin.USER_DELETE, admin.UserRef(name="carla")),
        Request(admin.USER_ROLE_CREATE, admin.CreateRole(name="new", permissions=(admin.Permission.VIEW,))),
        Request(admin.USER_ROLE_LIST, Empty()),
        Request(admin.USER_RESET, admin.ResetUser(name="carla", password="a password")),
        Request(admin.USER_RESET, admin.ResetUser(name="second", password="a password"), "hugo"),
        Request(admin.USER_RESET, admin.ResetUser(name="eve", password="a password"), "hugo"),
        Request(admin.USER_UNLOCK, admin.Unlock(role=Role.USER, name="eve")),
        Request(admin.USER_UNLOCK, admin.Unlock(role=Role.USER, name="second"), "hugo"),
        Request(admin.USER_UNLOCK, admin.Unlock(role=Role.KRCO, keyring=keyring)),
        Request(admin.ROLE_LOCKS, admin.KeyringRef(keyring=keyring)),
        Request(admin.APPROVAL_LIST, Empty()),
        Request(admin.APPROVAL_APPROVE, admin.ApprovalRef(approval=scene.waits), "deputy"),
        Request(admin.APPROVAL_APPROVE, admin.ApprovalRef(approval=scene.waits)),
        Request(admin.APPROVAL_DENY, admin.ApprovalRef(approval=scene.waits), "deputy"),
        Request(admin.USER_ROLE_DELETE, admin.RoleRef(name="unused")),
        Request(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk")),
        Request(admin.GROUP_LIST, Empty(), "carla"),
        Request(admin.GROUP_CREATE, admin.NewGroup(label="east"), "carla"),
        Request(admin.CLUSTER_SHOW, Empty()),
        Request(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 150})),
        Request(admin.CLUSTER_POLICY, admin.PolicyChange(changes={})),
        Request(admin.CLUSTER_VERSION, Empty()),
        Request(admin.CLUSTER_UPGRADE, Empty()),
        Request(admin.CLUSTER_LEAVE, member),
        Request(admin.CLUSTER_DELETE, member),
        Request(admin.MEMBER_INVITE, Empty()),
        Request(admin.MEMBER_SET, admin.ChangeMember(member=b"b" * 16, name="b")),
        Request(admin.MEMBER_PROMOTE, member),
        Request(admin.MEMBER_REMOVE, member),
        Request(admin.MEMBER_REMOVE, member, "eve"),
        Request(admin.MEMBER_DELETE, admin.DeleteMember(member=b"b" * 16)),
        Request(admin.MEMBER_DELETE, admin.DeleteMember(member=b"b" * 16, force=True)),
        Request(admin.MEMBER_DIVERGENT, admin.LookAtDivergent(member=b"b" * 16)),
        Request(admin.MEMBER_MOVE, admin.MoveMember(member=b"b" * 16, group="east")),
        Request(admin.GROUP_CREATE, admin.NewGroup(label="east")),
        Request(admin.GROUP_LIST, Empty()),
        Request(admin.GROUP_DELETE, admin.GroupRef(label="east")),
        Request(overview.OVERVIEW, Empty()),
        Request(admin.STATUS, Empty()),
        Request(backup.NOW, Empty()),
        Request(backup.LIST, Empty()),
        Request(backup.SHOW, archive),
        Request(backup.VERIFY, archive),
        Request(backup.JOB, sample(backup.JobRef)),
        Request(backup.READ, sample(backup.PieceOf)),
        Request(backup.SCHEDULE, backup.SetSchedule(schedule=backup.Schedule(every=backup.Every.DAY))),
        Request(backup.SCHEDULE, backup.SetSchedule()),
        Request(backup.RESTORE, backup.Restore(name=archive.name)),
        Request(backup.WRITE, sample(backup.WritePiece)),
        Request(backup.DELETE, archive),
        Request(audit.AUDIT_EXPORT, audit.ReadTrail()),
        Request(smk.SMK_SHOW, Empty()),
        Request(smk.SMK_BACKUP, smk.BackupSmk(passphrase="a passphrase")),
        Request(smk.SMK_ROLLOVER, Empty()),
        Request(smk.SMK_RETIRE, smk.RetireSmk(newest=2)),
    ]  # fmt: skip


def test_every_operation_is_among_them(scene: Scene) -> None:
    assert {each.operation.name for each in requests(scene)} | {session.HELLO.name} == set(SERVED)


@pytest.mark.parametrize("name", sorted(set(SERVED) - {session.HELLO.name}))
def test_no_operation_acts_on_what_it_did_not_ask_for(scene: Scene, name: str) -> None:
    told = 0
    for request in requests(scene):
        if request.operation.name != name:
            continue
        true = scene.carry_out(request)
        assert scene.world.damage == []
        assert true.error is None or isinstance(true.error, (*ABSENT, errors.PermissionDenied, errors.AlreadyDone))
        for lie in scene.all_lies():
            told += 1
            _compare(scene, request, true, scene.carry_out(request, lie), lie)
    assert told, "it looked nothing up"


def _compare(scene: Scene, request: Request, true: Outcome, lied: Outcome, lie: Lie) -> None:
    where = f"{request}: {lie.name}: {lied.error!r}"
    if lied.error is not None:
        same = true.error is not None and lied.error.code == true.error.code
        assert same or isinstance(lied.error, REFUSED) or (lie.leaves_out and isinstance(lied.error, ABSENT)), where
        assert lied.of_records().items() <= true.of_records().items(), where
        if isinstance(lied.error, REFUSED):
            assert scene.world.damage, where
        return
    assert true.error is None, where
    assert lied.of_records().items() <= true.of_records().items(), where
    if request.operation is objects.ENCRYPT:
        decrypts = objects.Use(
            handle=scene.cipher,
            mechanism=Mechanism.AES_GCM,
            data=lied.reply.data,
            parameters=codec.encode({"iv": lied.reply.iv}),
        )
        assert scene.carry_out(Request(objects.DECRYPT, decrypts, "krco", of_keyring=True)).reply.data == b"data"
    elif request.operation is objects.WRAP_MANY:
        for said, right in zip(lied.reply.results, true.reply.results, strict=True):
            assert said == right or (lie.leaves_out and said[0] in {kind.code for kind in ABSENT}), where
    elif request.operation.name in DRAWN:
        assert type(lied.reply) is type(true.reply), where
    else:
        plain = (msgspec.to_builtins(reply, builtin_types=(bytes,)) for reply in (lied.reply, true.reply))
        assert _is_part_of(*plain) if lie.leaves_out else len({repr(each) for each in plain}) == 1, where


# A store ends a list where it likes, and with it a step of a rekey; the next page is checked again.
_OF_PAGES: Final = frozenset({"more", "last", "skipped", "open", "done"})


def _is_part_of(some: Any, whole: Any) -> bool:
    """Whether a reply is another one, but for what was left out of its lists."""
    if isinstance(some, dict):
        names = some.keys() - _OF_PAGES
        # What is left out of a message is empty, as its field is where nothing else is said.
        return names <= whole.keys() and all(_is_part_of(some[name], whole[name]) for name in names)
    if isinstance(some, list | tuple) and isinstance(whole, list | tuple):
        rest = iter(whole)
        return all(any(_is_part_of(one, other) for other in rest) for one in some)
    return bool(some == whole) or not some


def test_the_store_is_asked_through_the_checks_alone() -> None:
    for path in Path(lnh_services.hsm.__file__).parent.rglob("*.py"):
        if path.name != "answers.py":
            assert not re.search(r"\b(GET|SCAN|SCOPES)\b", path.read_text()), path
