"""Every operation of the table, on a worker that is behind: none says for certain what may be otherwise by now."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lnh_common.errors import (
    LnhError,
    MemberBehind,
    MemberReadOnly,
    NameUnknown,
    OutcomeUnknown,
    PolicyForbids,
    VersionConflict,
)
from lnh_common.messages import admin, audit, backup, objects, overview, session, smk, store
from lnh_common.messages.backup import ArchiveRef, Every, JobRef, PieceOf, Restore, SetSchedule, WritePiece
from lnh_common.messages.base import Effect, Empty, Listing, Message, Operation, Q, R
from lnh_common.messages.session import ChangePassword, Credential, Login, Logout, Register, Role
from lnh_common.pkcs11.attributes import Attribute, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import codec
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.effects import Ask, Peer
from lnh_services.hsm.worker.handlers.table import SERVED
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from models import carried
from models.worker import KRCO, KRSO, Client, World, generate_ec, make_keyring

GONE = b"g" * 16  # of what is not there
NEW = "a password of somebody's"
KRCO_OF = {"role": Role.KRCO, "password": KRCO}
TEMPLATE = {Attribute.LABEL.value: "new"}
SECRET = {**TEMPLATE, Attribute.VALUE_LEN.value: 32}
EC = {Attribute.EC_PARAMS.value: bytes.fromhex("06082a8648ce3d030107"), **TEMPLATE}
DATA = {Attribute.CLASS.value: ObjectClass.DATA.value, **TEMPLATE}
IN_SESSION = {Attribute.TOKEN.value: False, **TEMPLATE}
USE = objects.Use(handle=GONE, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
MEMBER = admin.MemberRef(member=GONE)
SCHEDULE = backup.Schedule(every=Every.HOURS, hours=6, keep=3)

# What is asked of each: of things that are not there, or are otherwise than is wanted.
ASKED: dict[Operation[Any, Any], Message] = {
    session.HELLO: Empty(),
    session.REGISTER: Register(
        administrator=Credential(role=Role.USER, name="admin", password=NEW),
        name="another", curve_key=bytes(32), sign_key=bytes(32),
    ),
    session.LOGIN: Login(credentials=(Credential(role=Role.KRCO, keyring=GONE, password=KRCO),)),
    session.RENEW: Empty(),
    session.ENDPOINTS: Empty(),
    session.LOGOUT: Logout(),
    session.CHANGE_PASSWORD: ChangePassword(
        credential=Credential(role=Role.USER, name="nobody", password=NEW), new="another password"
    ),
    admin.KEYRING_CREATE: admin.CreateKeyrings(label="payments"),
    admin.KEYRING_LIST: admin.ListKeyrings(label="none"),
    admin.KEYRING_SHOW: admin.KeyringRef(keyring=GONE),
    admin.KEYRING_DELETE: admin.KeyringRef(keyring=GONE),
    admin.KEYRING_POLICY: admin.PolicyChange(changes={"minimum_rsa_bits": 2048}),
    admin.KEYRING_REKEY: Empty(),
    admin.KEYRING_RESEAL: Empty(),
    admin.KEYRING_REKEY_STATE: Empty(),
    admin.ROLE_INIT: admin.InitRole(keyring=GONE, password=NEW),
    admin.ROLE_SET: admin.SetRole(password=NEW),
    admin.ROLE_LOCKS: admin.KeyringRef(keyring=GONE),
    admin.CLIENT_LIST: Empty(),
    admin.CLIENT_REVOKE: admin.ClientRef(client="nobody"),
    admin.CLIENT_ASSIGN: admin.Assignment(client="nobody", keyring=GONE),
    admin.CLIENT_UNASSIGN: admin.Assignment(client="nobody", keyring=GONE),
    admin.USER_ADD: admin.AddUser(name="admin", role="admin", password=NEW),
    admin.USER_LIST: Empty(),
    admin.USER_DELETE: admin.UserRef(name="admin"),
    admin.USER_RESET: admin.ResetUser(name="nobody", password=NEW),
    admin.USER_UNLOCK: admin.Unlock(role=Role.USER, name="nobody"),
    admin.USER_ROLE_CREATE: admin.CreateRole(name="clerk", permissions=(admin.Permission.VIEW,)),
    admin.USER_ROLE_LIST: Empty(),
    admin.USER_ROLE_DELETE: admin.RoleRef(name="clerk"),
    admin.CLUSTER_SHOW: Empty(),
    admin.CLUSTER_POLICY: admin.PolicyChange(changes={"minimum_rsa_bits": 3072}),
    admin.CLUSTER_VERSION: Empty(),
    admin.CLUSTER_UPGRADE: Empty(),
    admin.CLUSTER_LEAVE: MEMBER,
    admin.CLUSTER_DELETE: MEMBER,
    admin.MEMBER_INVITE: Empty(),
    admin.MEMBER_SET: admin.ChangeMember(member=GONE, name="other"),
    admin.MEMBER_PROMOTE: MEMBER,
    admin.MEMBER_REMOVE: MEMBER,
    admin.MEMBER_DELETE: admin.DeleteMember(member=GONE),
    admin.MEMBER_DIVERGENT: admin.LookAtDivergent(member=GONE),
    admin.MEMBER_MOVE: admin.MoveMember(member=GONE, group="local"),
    admin.GROUP_CREATE: admin.NewGroup(label="local"),
    admin.GROUP_LIST: Empty(),
    admin.GROUP_DELETE: admin.GroupRef(label="none"),
    admin.APPROVAL_LIST: Empty(),
    admin.APPROVAL_APPROVE: admin.ApprovalRef(approval=GONE),
    admin.APPROVAL_DENY: admin.ApprovalRef(approval=GONE),
    overview.OVERVIEW: Empty(),
    admin.STATUS: Empty(),
    backup.NOW: Empty(),
    backup.LIST: Empty(),
    backup.SHOW: ArchiveRef(name="none.lnhb"),
    backup.VERIFY: ArchiveRef(name="none.lnhb"),
    backup.JOB: JobRef(id=GONE),
    backup.READ: PieceOf(name="none.lnhb", offset=0),
    backup.SCHEDULE: SetSchedule(),
    backup.RESTORE: Restore(name="none.lnhb"),
    backup.WRITE: WritePiece(name="none.lnhb", offset=0, size=1, data=b"x"),
    backup.DELETE: ArchiveRef(name="none.lnhb"),
    audit.AUDIT_EXPORT: audit.ReadTrail(),
    smk.SMK_SHOW: Empty(),
    smk.SMK_BACKUP: smk.BackupSmk(passphrase=NEW),
    smk.SMK_ROLLOVER: Empty(),
    smk.SMK_RETIRE: smk.RetireSmk(newest=2),
    objects.GENERATE: objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=SECRET),
    objects.GENERATE_PAIR: objects.GenerateKeyPair(mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=EC),
    objects.GENERATE_MANY: objects.GenerateKeys(mechanism=Mechanism.AES_KEY_GEN, template=SECRET, total=2),
    objects.GENERATE_PAIRS: objects.GenerateKeyPairs(
        mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=EC, total=2
    ),
    objects.GENERATE_IN_SESSION: objects.GenerateKey(
        mechanism=Mechanism.AES_KEY_GEN, template={**SECRET, Attribute.TOKEN.value: False}
    ),
    objects.GENERATE_PAIR_IN_SESSION: objects.GenerateKeyPair(
        mechanism=Mechanism.EC_KEY_PAIR_GEN,
        public_template={**EC, Attribute.TOKEN.value: False}, private_template={Attribute.TOKEN.value: False},
    ),
    objects.CREATE: objects.CreateObject(template=DATA, value=b"data"),
    objects.CREATE_IN_SESSION: objects.CreateObject(template={**DATA, Attribute.TOKEN.value: False}, value=b"data"),
    objects.COPY: objects.Copy(handle=GONE, template=TEMPLATE),
    objects.VALUE: objects.Show(handle=GONE),
    objects.WRAP_MANY: objects.WrapMany(handle=GONE, mechanism=Mechanism.AES_KEY_WRAP, keys=(GONE,)),
    objects.WRAP: objects.Wrap(handle=GONE, mechanism=Mechanism.AES_KEY_WRAP, key=GONE),
    objects.UNWRAP: objects.Unwrap(
        handle=GONE, mechanism=Mechanism.AES_KEY_WRAP, template=TEMPLATE, data=b"wrapped"
    ),
    objects.UNWRAP_IN_SESSION: objects.Unwrap(
        handle=GONE, mechanism=Mechanism.AES_KEY_WRAP, template=IN_SESSION, data=b"wrapped"
    ),
    objects.DERIVE: objects.Derive(handle=GONE, mechanism=Mechanism.HKDF_DERIVE, template=TEMPLATE),
    objects.DERIVE_IN_SESSION: objects.Derive(handle=GONE, mechanism=Mechanism.HKDF_DERIVE, template=IN_SESSION),
    objects.ENCAPSULATE: objects.Derive(handle=GONE, mechanism=Mechanism.ML_KEM, template=TEMPLATE),
    objects.ENCAPSULATE_IN_SESSION: objects.Derive(handle=GONE, mechanism=Mechanism.ML_KEM, template=IN_SESSION),
    objects.DECAPSULATE: objects.Decapsulate(
        handle=GONE, mechanism=Mechanism.ML_KEM, template=TEMPLATE, data=b"ciphertext"
    ),
    objects.DECAPSULATE_IN_SESSION: objects.Decapsulate(
        handle=GONE, mechanism=Mechanism.ML_KEM, template=IN_SESSION, data=b"ciphertext"
    ),
    objects.FIND: objects.Find(template={Attribute.LABEL.value: "none"}),
    objects.SHOW: objects.Show(handle=GONE),
    objects.SET: objects.SetAttributes(handle=GONE, template=TEMPLATE),
    objects.DESTROY: objects.Destroy(handle=GONE),
    objects.SIGN: USE,
    objects.SIGN_MANY: objects.UseMany(handle=GONE, mechanism=Mechanism.ECDSA_SHA256, items=(b"data",)),
    objects.VERIFY: objects.Verify(handle=GONE, mechanism=Mechanism.ECDSA_SHA256, data=b"data", signature=b"s"),
    objects.VERIFY_MANY: objects.VerifyMany(
        handle=GONE, mechanism=Mechanism.ECDSA_SHA256, items=(b"data",), signatures=(b"s",)
    ),
    objects.ENCRYPT: USE,
    objects.ENCRYPT_MANY: objects.UseMany(handle=GONE, mechanism=Mechanism.AES_GCM, items=(b"data",)),
    objects.DECRYPT_MANY: objects.UseMany(handle=GONE, mechanism=Mechanism.AES_GCM, items=(b"data",)),
    objects.DECRYPT: USE,
    objects.STREAM: objects.Part(
        stream=GONE, use=objects.StreamedUse.SIGN, mechanism=Mechanism.AES_CMAC, data=b"data", offset=0, handle=GONE
    ),
    objects.USES: objects.Uses(uses=(("key.sign", codec.decode(codec.encode(USE))),)),
    objects.RANDOM: objects.RandomBytes(length=8),
}  # fmt: skip

OF_OWN_ARCHIVES = {
    backup.NOW, backup.LIST, backup.SHOW, backup.VERIFY, backup.JOB, backup.READ, backup.WRITE, backup.DELETE,
}  # fmt: skip
OF_A_KRSO = {
    admin.KEYRING_POLICY, admin.ROLE_SET, admin.KEYRING_REKEY, admin.KEYRING_RESEAL, admin.KEYRING_REKEY_STATE,
}  # fmt: skip
_CORES = {
    "core.invite", "core.restore.allow", "core.smk.backup", "core.smk.rollover", "core.smk.retire", "core.audit.read",
}  # fmt: skip
ADMINISTRATIVE = ("keyring", "role", "client", "user", "cluster", "member", "group", "status", "backup", "smk", "audit")


class Scene:
    """A cluster, whose member the worker is on has not heard of anything since; who asks was logged in before."""

    def __init__(self) -> None:
        self.world = World()
        self.worker = self.world.worker()
        self.client = Client(self.world, self.worker).register()
        self.keyring = make_keyring(self.client)
        self.krso = self._role(Role.KRSO, KRSO)
        self.krco = self._role(Role.KRCO, KRCO)
        generate_ec(self.krco, self.keyring)
        self.administrator = self.client.as_administrator()
        self._kept = copy.deepcopy(self.world.store.storage)

    def again(self) -> Scene:
        """The same as it was at first."""
        self.world.__dict__.pop("answer", None)
        self.world.store.storage = copy.deepcopy(self._kept)
        self.world.store.current, self.world.read_only, self.world.seen = True, False, HighestSeen()
        self.worker.drop_everything()
        self.world.attach(self.worker)
        return self

    def _role(self, role: Role, password: str) -> Client:
        other = Client(self.world, self.worker, self.client.key, self.client.id)
        other.login(Credential(role=role, keyring=self.keyring, password=password))
        return other

    def others(self) -> None:
        """Have membership, balancer and backup play their parts: they know of nothing that an order names."""
        answer = self.world.answer

        def of_this_member(asked: Ask) -> Message:
            if asked.peer not in (Peer.MEMBERSHIP, Peer.BALANCER, Peer.BACKUP) and asked.operation.name not in _CORES:
                return answer(asked)
            if asked.operation.effect is Effect.WRITE or asked.peer is Peer.BACKUP:
                raise NameUnknown(f"{asked.operation.name}: no such thing")
            made: Message = carried.sample(asked.operation.reply)
            return made

        self.world.answer = of_this_member  # type: ignore[method-assign]  # the others are played here alone

    def falls_behind(self) -> None:
        """Hear of nothing any more: the store takes no writes, and what it has may be old."""
        self.world.read_only = True
        self.world.store.current = False
        self.world.attach(self.worker, read_write=False)

    def ask(self, operation: Operation[Q, R], message: Q) -> R:
        if operation.seal.name == "CREDENTIAL":
            return self.client.ask(operation, message, self.keyring)
        who = self.krso if operation in OF_A_KRSO else self.krco
        if operation.name.partition(".")[0] in ADMINISTRATIVE and operation not in OF_A_KRSO:
            who = self.administrator
        return who.ask(operation, message, self.keyring)


def outcome(scene: Scene, operation: Operation[Message, Message]) -> Message | LnhError:
    try:
        return scene.ask(operation, ASKED[operation])
    except LnhError as error:
        return error


def test_every_operation_is_asked() -> None:
    assert {operation.name for operation in ASKED} == set(SERVED)


@pytest.fixture(scope="module")
def one_scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = Scene()
    scene.world.offline_attempts = OfflineAttempts(tmp_path_factory.mktemp("member") / "guesses.cbor")
    return scene


@pytest.fixture
def scene(one_scene: Scene) -> Scene:
    return one_scene.again()


@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: operation.name)
def test_no_operation_denies_for_certain_what_a_member_that_is_behind_cannot_know(
    scene: Scene, operation: Operation[Any, Any]
) -> None:
    scene.others()
    in_step = outcome(scene, operation)
    if SERVED[operation.name].commits and isinstance(in_step, LnhError) and in_step.of_state:
        assert in_step.is_final or operation is session.REGISTER, "of every try of it; a stranger's apart"
    scene.again().others()
    scene.falls_behind()
    said = outcome(scene, operation)
    if operation in OF_OWN_ARCHIVES:
        assert type(said) is type(in_step)
        return
    doubts = (MemberBehind, MemberReadOnly) if operation.effect is Effect.WRITE else (MemberBehind,)
    if isinstance(said, objects.Outcomes):
        assert said.outcomes[0][0] == MemberBehind.code
    elif isinstance(said, LnhError):
        assert not said.of_state, said
        if isinstance(in_step, LnhError) and in_step.of_state:
            assert isinstance(said, doubts), said
    elif isinstance(said, Listing):
        assert said.behind is not None
        assert not said.is_bare()
        assert isinstance(in_step, Listing)
        assert in_step.behind is None
    else:
        assert not isinstance(in_step, LnhError)


def test_most_of_what_is_asked_above_is_refused_in_step_for_what_is_stored(scene: Scene) -> None:
    refused: set[str] = set()
    for operation in ASKED:
        scene.again().others()
        if getattr(outcome(scene, operation), "of_state", False):
            refused.add(operation.name)
    assert len(refused) > 30, sorted(refused)
    assert refused >= {objects.SHOW.name, objects.DESTROY.name, admin.KEYRING_SHOW.name, session.LOGIN.name}


class Late:
    """Keeps the commit of a write back, as if it were still on its way to the primary; `arrives` lets it come."""

    def __init__(self, scene: Scene, operation: Operation[Any, Any], message: Message) -> None:
        self.scene = scene
        self.operation = operation
        self.kept: list[Ask] = []
        self.sent, self.keys = scene.krco.sealed(operation, message, scene.keyring)
        answer = scene.world.answer

        def keep(asked: Ask) -> Message:
            if asked.operation is not store.COMMIT or self.kept:
                return answer(asked)
            self.kept.append(asked)
            raise OutcomeUnknown("no answer came")

        scene.world.answer = keep  # type: ignore[method-assign]  # one commit is on its way for long
        with pytest.raises(OutcomeUnknown):
            self.again()
        assert self.kept

    def again(self) -> Message:
        """Another try of the same write."""
        reply: Message = self.scene.krco.open(
            self.operation, self.sent, self.keys, self.scene.world.serve(self.scene.worker, self.sent)
        )
        return reply

    def arrives(self) -> Message:
        return self.scene.world.answer(self.kept[0])


def labels(scene: Scene) -> list[Any]:
    found = scene.ask(objects.FIND, objects.Find())
    return [view.attributes[Attribute.LABEL.value] for view in found.objects]


def test_a_write_that_was_refused_never_acts_however_late_an_earlier_try_of_it_comes(scene: Scene) -> None:
    late = Late(scene, objects.GENERATE, ASKED[objects.GENERATE])
    scene.krso.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"allowed_mechanisms": []}), scene.keyring)
    with pytest.raises(PolicyForbids) as refused:
        late.again()
    assert refused.value.is_final
    with pytest.raises(VersionConflict):
        late.arrives()
    assert labels(scene) == ["ca", "ca"]


def test_a_write_whose_earlier_try_acts_while_it_looks_is_done(scene: Scene) -> None:
    handle = scene.ask(objects.FIND, objects.Find()).objects[0].handle
    late = Late(scene, objects.DESTROY, objects.Destroy(handle=handle))
    answer = scene.world.answer

    def arrive(asked: Ask) -> Message:
        if isinstance(asked.message, store.Get) and asked.message.key.table == store.OBJECTS:
            scene.world.answer = answer  # type: ignore[method-assign]
            late.arrives()  # after it was asked whether it had acted, and before the object is looked for
        return answer(asked)

    scene.world.answer = arrive  # type: ignore[method-assign]
    assert late.again() == Empty()
    assert late.again() == Empty()
    assert len(labels(scene)) == 1


def test_what_was_made_and_is_gone_again_is_not_said_never_to_have_been_made(scene: Scene) -> None:
    sent, keys = scene.krco.sealed(objects.GENERATE, ASKED[objects.GENERATE], scene.keyring)
    made = scene.krco.open(objects.GENERATE, sent, keys, scene.world.serve(scene.worker, sent))
    scene.ask(objects.DESTROY, objects.Destroy(handle=made.handle))
    with pytest.raises(OutcomeUnknown, match="it was made"):
        scene.krco.open(objects.GENERATE, sent, keys, scene.world.serve(scene.worker, sent))


def test_what_was_read_under_another_lease_is_not_committed_but_read_again(scene: Scene) -> None:
    handle = scene.ask(objects.FIND, objects.Find()).objects[0].handle
    answer = scene.world.answer

    def lapse(asked: Ask) -> Message:
        if isinstance(asked.message, store.Get) and asked.message.key.table == store.OBJECTS:
            scene.world.answer = answer  # type: ignore[method-assign]
            found = answer(asked)
            scene.world.attach(scene.worker, read_write=False)
            scene.world.attach(scene.worker)
            return found
        return answer(asked)

    sent, keys = scene.krco.sealed(objects.DESTROY, objects.Destroy(handle=handle), scene.keyring)
    scene.world.answer = lapse  # type: ignore[method-assign]
    with pytest.raises(MemberBehind):
        scene.krco.open(objects.DESTROY, sent, keys, scene.world.serve(scene.worker, sent))
    assert len(labels(scene)) == 2
    scene.krco.open(objects.DESTROY, sent, keys, scene.world.serve(scene.worker, sent))
    assert len(labels(scene)) == 1
