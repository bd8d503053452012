"""Policy `dual_control`, asked over the real channel: what waits, for whom, and that nothing leads around it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import (
    AlreadyDone,
    ApprovalNeeded,
    ArchiveInvalid,
    ArgumentInvalid,
    KeyringUnknown,
    LnhError,
    MemberReadOnly,
    NameUnknown,
    NotPossible,
    PermissionDenied,
    StateRolledBack,
)
from lnh_common.messages import admin, backup, hsm, membership, session, smk
from lnh_common.messages.admin import Decision, Permission
from lnh_common.messages.base import OPERATIONS, Empty, Message, Operation, Seal
from lnh_common.messages.session import ChangePassword, Credential, Register, Role
from lnh_services.hsm.effects import Ask, Peer
from lnh_services.hsm.records import TABLES, ApprovalRecord, PolicyRecord
from lnh_services.hsm.worker.handlers.table import SERVED
from models.carried import sample
from models.worker import PO_PASSWORD, Client, World, make_keyring
from sizes import sized

PASSWORD: Final = "a password of theirs"
PO: Final = Credential(role=Role.PO, password=PO_PASSWORD)


def user(name: str) -> Credential:
    return Credential(role=Role.USER, name=name, password=PASSWORD)


class Scene:
    """Two admins, a helpdesk and an auditor, and keyrings to be deleted."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.worker = self.world.worker()
        client = Client(self.world, self.worker).register()
        first = client.as_administrator()
        for role, held in {"helpdesk": [Permission.USERS], "auditor": [Permission.APPROVE]}.items():
            first.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name=role, permissions=tuple(held)))
        for name, role in {
            "alice": "admin",
            "bob": "admin",
            "hugo": "helpdesk",
            "ada": "auditor",
            "olga": "operator",
        }.items():
            first.ask(admin.USER_ADD, admin.AddUser(name=name, role=role, password=PASSWORD))
        self.payments = make_keyring(client, "payments")
        self.other = make_keyring(client, "other")
        self.first = first
        self.alice, self.bob = self.session("alice"), self.session("bob")

    def session(self, *names: str, po: bool = True) -> Client:
        made = Client(self.world, self.worker)
        made.login(*map(user, names), *([PO] if po and len(names) < 2 else []))
        return made

    def rule(self, *names: str) -> None:
        self.first.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"dual_control": list(names)}))

    def deletes(self, by: Client, keyring: bytes) -> None:
        by.ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring))

    def asks(self, by: Client, operation: Operation[Any, Any], message: Message) -> bytes:
        """The approval that an operation waits for."""
        with pytest.raises(ApprovalNeeded) as refused:
            by.ask(operation, message)
        assert refused.value.detail["decision"] == "waiting"
        return bytes.fromhex(refused.value.detail["approval"])

    def listed(self) -> list[admin.ApprovalView]:
        return list(self.bob.ask(admin.APPROVAL_LIST, Empty()).approvals)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def approve(by: Client, approval: bytes) -> admin.ApprovalView:
    return by.ask(admin.APPROVAL_APPROVE, admin.ApprovalRef(approval=approval))


def test_a_keyring_is_deleted_once_another_admin_approved_it(scene: Scene) -> None:
    scene.rule("keyring.delete")
    asked = admin.KeyringRef(keyring=scene.payments)
    approval = scene.asks(scene.alice, admin.KEYRING_DELETE, asked)
    assert scene.asks(scene.alice, admin.KEYRING_DELETE, asked) == approval, "asked twice it waits once"
    (waits,) = scene.listed()
    assert (waits.id, waits.operation, waits.about) == (approval, "keyring.delete", "keyring payments")
    assert (waits.requesters, waits.decision, waits.arguments) == (
        ("alice",),
        Decision.WAITING,
        {"keyring": scene.payments},
    )
    with pytest.raises(PermissionDenied, match="nobody approves what he asked for himself"):
        approve(scene.alice, approval)
    assert approve(scene.bob, approval).deciders == ("bob",)
    for other in (scene.bob, scene.first):
        scene.asks(other, admin.KEYRING_DELETE, asked)  # it was approved for alice
    scene.asks(scene.alice, admin.KEYRING_DELETE, admin.KeyringRef(keyring=scene.other))  # and for this one alone
    scene.deletes(scene.session("alice"), scene.payments)
    with pytest.raises(KeyringUnknown):
        scene.alice.ask(admin.KEYRING_SHOW, asked)
    assert next(each for each in scene.listed() if each.id == approval).decision is Decision.USED
    with pytest.raises(AlreadyDone):
        approve(scene.bob, approval)
    assert scene.asks(scene.alice, admin.KEYRING_DELETE, asked) != approval, "it was good once"


def test_what_was_sent_again_is_carried_out_once_and_what_asked_never_is(scene: Scene) -> None:
    scene.rule("keyring.delete")
    other = scene.world.worker()
    asked = admin.KeyringRef(keyring=scene.payments)
    first, keys = scene.alice.sealed(admin.KEYRING_DELETE, asked)

    def send(sent: Any, keys_: Any, worker: Any) -> None:
        scene.alice.open(admin.KEYRING_DELETE, sent, keys_, scene.world.serve(worker, sent))

    with pytest.raises(ApprovalNeeded) as refused:
        send(first, keys, scene.worker)
    late, keys_of_late = scene.alice.sealed(admin.KEYRING_DELETE, asked)
    for worker in (scene.worker, other):
        with pytest.raises(ApprovalNeeded, match="waits for a second person"):
            send(late, keys_of_late, worker)
    approve(scene.bob, bytes.fromhex(refused.value.detail["approval"]))
    for worker in (scene.worker, other):
        with pytest.raises(ApprovalNeeded):
            send(first, keys, worker)
        with pytest.raises(ApprovalNeeded, match="approved after this try of it was refused"):
            send(late, keys_of_late, worker)
    again, keys = scene.alice.sealed(admin.KEYRING_DELETE, asked)
    for worker in (scene.worker, other, scene.worker):
        send(again, keys, worker)
    assert [each.operation for each in scene.world.audit].count("approval.use") == 1


def test_each_step_is_in_the_audit_trail(scene: Scene) -> None:
    scene.rule("keyring.delete")
    asked = admin.KeyringRef(keyring=scene.payments)
    approval = scene.asks(scene.alice, admin.KEYRING_DELETE, asked)
    scene.bob.ask(admin.APPROVAL_DENY, admin.ApprovalRef(approval=approval))
    with pytest.raises(ApprovalNeeded, match="was denied by bob"):
        scene.deletes(scene.alice, scene.payments)
    approve(scene.bob, approval)
    scene.deletes(scene.alice, scene.payments)
    found = [(each.operation, each.identity) for each in scene.world.audit if each.target == approval.hex()]
    assert found == [
        ("approval.request", "alice+po"), ("approval.deny", "bob+po"), ("approval.approve", "bob+po"),
        ("approval.use", "alice+po"),
    ]  # fmt: skip


def test_nobody_switches_it_off_alone(scene: Scene) -> None:
    scene.rule("keyring.delete")
    for names in ([], ["member.remove"], ["keyring.delete", "member.remove"]):
        change = admin.PolicyChange(changes={"dual_control": names})
        scene.asks(scene.alice, admin.CLUSTER_POLICY, change)
    scene.alice.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"minimum_rsa_bits": 3072}))  # is not named
    scene.alice.ask(admin.CLUSTER_POLICY, admin.PolicyChange())
    off = admin.PolicyChange(changes={"dual_control": []})
    approve(scene.bob, scene.asks(scene.alice, admin.CLUSTER_POLICY, off))
    assert scene.alice.ask(admin.CLUSTER_POLICY, off).policy["dual_control"] == []
    scene.deletes(scene.alice, scene.payments)


def test_nobody_makes_the_second_person_himself(scene: Scene) -> None:
    scene.rule("keyring.delete")
    for role in ("admin", "auditor", "helpdesk"):  # who may approve, and who may ask for what an admin then approves
        scene.asks(scene.alice, admin.USER_ADD, admin.AddUser(name="puppet", role=role, password=PASSWORD))
    for name in ("bob", "ada", "hugo"):
        scene.asks(scene.alice, admin.USER_RESET, admin.ResetUser(name=name, password="a new password"))
    scene.asks(scene.alice, backup.RESTORE, backup.Restore(name="before.lnhb"))
    scene.alice.ask(admin.USER_ADD, admin.AddUser(name="harmless", role="operator", password=PASSWORD))
    scene.alice.ask(admin.USER_RESET, admin.ResetUser(name="harmless", password="a new password"))
    added = admin.AddUser(name="puppet", role="admin", password=PASSWORD)
    approval = next(
        each.id for each in scene.listed() if each.operation == "user.add" and each.arguments["role"] == "admin"
    )
    approve(scene.bob, approval)
    scene.alice.ask(admin.USER_ADD, added)
    scene.session("puppet")


def test_a_password_is_no_part_of_what_is_approved(scene: Scene) -> None:
    scene.rule("user.add")
    approval = scene.asks(scene.alice, admin.USER_ADD, admin.AddUser(name="new", role="monitor", password=PASSWORD))
    approve(scene.bob, approval)
    scene.alice.ask(admin.USER_ADD, admin.AddUser(name="new", role="monitor", password="another password"))
    kept = scene.world.store.storage.items
    assert not any(PASSWORD.encode() in item.head for item in kept.values() if item.key.table == "approval")


def test_a_role_that_is_made_anew_meanwhile_gains_nothing(scene: Scene) -> None:
    def make(*permissions: Permission) -> None:
        scene.world.now += 1
        scene.alice.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name="mine", permissions=permissions))

    scene.rule("user.add")
    make(Permission.VIEW)
    puppet = admin.AddUser(name="puppet", role="mine", password=PASSWORD)
    approve(scene.bob, scene.asks(scene.alice, admin.USER_ADD, puppet))
    scene.alice.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="mine"))
    for more in (Permission.APPROVE, Permission.USERS, Permission.CLUSTER):
        made = admin.CreateRole(name="mine", permissions=(Permission.VIEW, more))
        scene.asks(scene.alice, admin.USER_ROLE_CREATE, made)
    make(Permission.VIEW, Permission.GROUPS)
    scene.asks(scene.alice, admin.USER_ADD, puppet)


def test_an_auditor_approves_and_a_helpdesk_does_not(scene: Scene) -> None:
    scene.rule("keyring.delete")
    approval = scene.asks(scene.alice, admin.KEYRING_DELETE, admin.KeyringRef(keyring=scene.payments))
    with pytest.raises(PermissionDenied, match="approve"):
        approve(scene.session("hugo"), approval)
    approve(scene.session("ada"), approval)
    scene.deletes(scene.alice, scene.payments)


def test_two_who_may_approve_stay(scene: Scene) -> None:
    scene.rule("keyring.delete")
    for name in ("admin", "ada"):
        scene.alice.ask(admin.USER_DELETE, admin.UserRef(name=name))
    with pytest.raises(NotPossible, match="two users who may approve"):
        scene.alice.ask(admin.USER_DELETE, admin.UserRef(name="bob"))
    scene.alice.ask(admin.USER_DELETE, admin.UserRef(name="hugo"))


def test_it_is_switched_on_only_where_two_may_approve_and_for_what_can_wait(scene: Scene) -> None:
    for wrong in (["keyring.create"], ["no.such"], "keyring.delete", [1]):
        with pytest.raises(ArgumentInvalid, match=r"dual_control.*keyring\.delete"):
            scene.first.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"dual_control": wrong}))
    for name in ("bob", "ada", "admin"):
        scene.alice.ask(admin.USER_DELETE, admin.UserRef(name=name))
    with pytest.raises(NotPossible, match="two users who may approve"):
        scene.alice.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"dual_control": ["keyring.delete"]}))


def test_two_in_one_session_need_no_record(scene: Scene) -> None:
    scene.rule("user.delete")
    both = scene.session("alice", "bob")
    scene.asks(scene.alice, admin.USER_DELETE, admin.UserRef(name="hugo"))
    scene.world.read_only = True
    with pytest.raises(MemberReadOnly, match="a second person"):
        scene.alice.ask(admin.USER_DELETE, admin.UserRef(name="ada"))
    scene.world.read_only = False
    both.ask(admin.USER_DELETE, admin.UserRef(name="hugo"))


def test_it_expires_and_asked_again_it_waits_anew(scene: Scene) -> None:
    scene.rule("keyring.delete")
    asked = admin.KeyringRef(keyring=scene.payments)
    approval = scene.asks(scene.alice, admin.KEYRING_DELETE, asked)
    approve(scene.bob, approval)
    scene.world.now += limits.APPROVAL_SECONDS
    scene.alice, scene.bob = scene.session("alice"), scene.session("bob")
    with pytest.raises(NotPossible, match="expired"):
        approve(scene.bob, approval)
    assert scene.asks(scene.alice, admin.KEYRING_DELETE, asked) != approval
    with pytest.raises(NameUnknown):
        approve(scene.bob, b"x" * 16)


@pytest.mark.parametrize("kind", [ApprovalRecord, PolicyRecord])
def test_a_store_that_serves_what_was_before_gains_nothing(scene: Scene, kind: type) -> None:
    items = scene.world.store.storage.items
    before = {at: item for at, item in items.items() if item.key.table == TABLES[kind]}
    scene.rule("keyring.delete")
    asked = admin.KeyringRef(keyring=scene.payments)
    approve(scene.bob, scene.asks(scene.alice, admin.KEYRING_DELETE, asked))
    if kind is ApprovalRecord:
        before = {at: item for at, item in items.items() if item.key.table == TABLES[kind]}
    scene.deletes(scene.alice, scene.payments)
    for at in [at for at, item in items.items() if item.key.table == TABLES[kind]]:
        items.pop(at)
    items.update(before)
    worker = scene.world.worker()
    with pytest.raises((StateRolledBack, ApprovalNeeded)):
        replace(scene.alice, worker=worker, connection=os.urandom(16)).ask(admin.KEYRING_DELETE, asked)


# What alice asks for, of each operation that may wait; client.register is another one's, below.
HELD: Final[dict[str, Message]] = {
    admin.KEYRING_DELETE.name: admin.KeyringRef(keyring=bytes(16)),
    admin.CLIENT_REVOKE.name: admin.ClientRef(client="client"),
    admin.USER_ADD.name: admin.AddUser(name="new", role="monitor", password=PASSWORD),
    admin.USER_ROLE_CREATE.name: admin.CreateRole(name="new", permissions=(Permission.VIEW,)),
    admin.USER_DELETE.name: admin.UserRef(name="olga"),
    admin.USER_RESET.name: admin.ResetUser(name="hugo", password=PASSWORD),
    admin.CLUSTER_POLICY.name: admin.PolicyChange(changes={"minimum_rsa_bits": 3072}),
    admin.CLUSTER_LEAVE.name: admin.MemberRef(member=bytes(16)),
    admin.CLUSTER_DELETE.name: admin.MemberRef(member=bytes(16)),
    admin.MEMBER_INVITE.name: Empty(),
    admin.MEMBER_REMOVE.name: admin.MemberRef(member=bytes(16)),
    admin.MEMBER_DELETE.name: admin.DeleteMember(member=bytes(16)),
    backup.RESTORE.name: backup.Restore(name="before.lnhb"),
    backup.DELETE.name: backup.ArchiveRef(name="before.lnhb"),
    smk.SMK_BACKUP.name: smk.BackupSmk(passphrase=PASSWORD),
    smk.SMK_ROLLOVER.name: Empty(),
    smk.SMK_RETIRE.name: smk.RetireSmk(newest=1),
}
ORDERS: Final = (Peer.MEMBERSHIP, Peer.BACKUP, Peer.CORE)  # carry out what a worker does not commit itself


class Played(World):
    """A world whose core answers orders too, and that notes what was ordered."""

    def __init__(self) -> None:
        super().__init__()
        self.ordered: list[str] = []
        self.allowed: list[backup.Allow] = []
        self.archive = b"a" * 16

    def answer(self, asked: Ask) -> Message:
        if asked.operation is backup.SHOW_ARCHIVE:
            return msgspec.structs.replace(sample(backup.ArchiveView), id=self.archive)
        if isinstance(asked.message, backup.Allow):
            self.allowed.append(asked.message)
        if asked.peer in ORDERS and asked.operation not in (membership.STATUS, hsm.AUDIT, hsm.SEEN, backup.STATUS):
            self.ordered.append(asked.operation.name)
        if asked.operation in (hsm.INVITE, backup.ALLOW, smk.MAKE_SMK_BACKUP, smk.ROLL_SMK, smk.RETIRE_SMKS):
            return cast("Message", sample(asked.operation.reply))
        return super().answer(asked)


@pytest.fixture(scope="module")
def every() -> Scene:
    """A cluster whose policy names all that it may."""
    scene = Scene(Played())
    scene.rule(*(name for name, served in SERVED.items() if served.second is not None))
    return scene


def test_every_operation_that_may_wait_is_asked() -> None:
    assert {*HELD, session.REGISTER.name} == {name for name, served in SERVED.items() if served.second is not None}


@pytest.mark.parametrize("name", HELD)
def test_whatever_the_policy_names_waits_and_is_done_once_approved(every: Scene, name: str) -> None:
    operation, world = OPERATIONS[name], every.world
    assert isinstance(world, Played)
    before, world.ordered[:] = dict(world.store.storage.items), []

    def changed() -> bool:
        items = world.store.storage.items
        return any(items.get(at) != before.get(at) for at in {*items, *before} if at[0] != TABLES[ApprovalRecord])

    for _ in range(2):
        approval = every.asks(every.alice, operation, HELD[name])
    assert not world.ordered
    assert not changed()
    approve(every.bob, approval)
    used = sum(each.operation == "approval.use" for each in world.audit)
    try:
        every.alice.ask(operation, HELD[name])
        assert world.ordered or changed()
    except KeyringUnknown:  # it reached the handler, and there is none
        assert name == admin.KEYRING_DELETE.name
    assert sum(each.operation == "approval.use" for each in world.audit) == used + 1
    every.asks(every.alice, operation, HELD[name])


def test_the_archive_that_was_approved_is_restored_and_no_other_of_its_name(every: Scene) -> None:
    world = every.world
    assert isinstance(world, Played)
    asked = backup.Restore(name="mine.lnhb")
    approve(every.bob, every.asks(every.alice, backup.RESTORE, asked))
    first, world.archive = world.archive, b"another archive!"
    other = every.asks(every.alice, backup.RESTORE, asked)
    world.archive = first
    every.alice.ask(backup.RESTORE, asked)
    assert world.allowed[-1].archive == first
    world.archive = b"another archive!"
    approve(every.bob, other)
    sent, keys = every.alice.sealed(backup.RESTORE, asked)
    for archive in (b"another archive!", first):  # which has come in its place when the request comes again
        world.archive = archive
        every.alice.open(backup.RESTORE, sent, keys, world.serve(every.worker, sent))
        assert world.allowed[-1].archive == b"another archive!"
    world.archive = b""
    with pytest.raises(ArchiveInvalid):
        every.alice.ask(backup.RESTORE, asked)
    world.archive = first


def test_a_registration_waits_as_well(every: Scene) -> None:
    def register(by: str, name: str = "new") -> bytes:
        made = Client(every.world, every.worker)
        message = Register(
            administrator=user(by), name=name, curve_key=os.urandom(32),
            sign_key=made.key.public_key().public_bytes_raw(),
        )  # fmt: skip
        return made.ask(session.REGISTER, message).client

    with pytest.raises(ApprovalNeeded) as refused:
        register("alice")
    approve(every.bob, bytes.fromhex(refused.value.detail["approval"]))
    for by, name in (("bob", "new"), ("alice", "newer")):
        with pytest.raises(ApprovalNeeded):
            register(by, name)
    register("alice")
    used = [each for each in every.world.audit if each.operation == "approval.use"]
    assert (used[-1].identity, used[-1].detail["for"]) == ("alice", "client.register")
    with pytest.raises(ApprovalNeeded):
        register("alice")


def test_looking_waits_for_nobody(every: Scene) -> None:
    every.alice.ask(admin.CLUSTER_POLICY, admin.PolicyChange())
    every.alice.ask(backup.RESTORE, backup.Restore(name="before.lnhb", check=True))


def test_every_row_that_may_wait_is_one_of_users_and_shows_no_secret() -> None:
    for name, served in SERVED.items():
        if served.second is None:
            continue
        secret = {
            each for each in served.operation.request.__struct_fields__ if "pass" in each or "administrator" in each
        }
        assert secret <= served.second.without, name
        if served.operation.seal is Seal.SESSION:
            assert served.rule is not None, name
            assert served.rule.permission is not None, name
            assert served.rule.audited, name


class Alone:
    """Alice, with every session that she can open, and whatever she tries."""

    NAMES: Final = ("alice", "bob", "ada", "hugo", "pat", "pam")
    ROLES: Final = ("admin", "operator", "auditor", "helpdesk", "mine")

    def __init__(self) -> None:
        self.scene = Scene()
        self.scene.rule("keyring.delete", "user.delete")
        self.known = {"alice": PASSWORD}  # the passwords that she knows
        self.sessions = [self.scene.alice]

    def by(self, number: int) -> Client:
        return self.sessions[number % len(self.sessions)]

    def makes_a_role(self, by: int, one: int, other: int) -> None:
        every = tuple(Permission)
        held = {every[one % len(every)], every[other % len(every)]}
        self.by(by).ask(admin.USER_ROLE_CREATE, admin.CreateRole(name="mine", permissions=tuple(held)))

    def adds(self, by: int, one: int, other: int) -> None:
        name, role = self.NAMES[one % len(self.NAMES)], self.ROLES[other % len(self.ROLES)]
        self.by(by).ask(admin.USER_ADD, admin.AddUser(name=name, role=role, password="known to her"))
        self.known[name] = "known to her"

    def resets(self, by: int, one: int, _: int) -> None:
        name = self.NAMES[one % len(self.NAMES)]
        self.by(by).ask(admin.USER_RESET, admin.ResetUser(name=name, password="a first one"))
        first = Credential(role=Role.USER, name=name, password="a first one")
        made = Client(self.scene.world, self.scene.worker)
        made.ask(session.CHANGE_PASSWORD, ChangePassword(credential=first, new="known to her"))
        self.known[name] = "known to her"

    def logs_in(self, _: int, one: int, other: int) -> None:
        names = list(self.known)
        given = [
            Credential(role=Role.USER, name=name, password=self.known[name])
            for name in (names[one % len(names)], names[other % len(names)])
        ]
        made = Client(self.scene.world, self.scene.worker)
        made.login(given[0], PO if one == other else given[1])
        self.sessions.append(made)

    def deletes_a_user(self, by: int, one: int, _: int) -> None:
        self.by(by).ask(admin.USER_DELETE, admin.UserRef(name=self.NAMES[one % len(self.NAMES)]))

    def deletes_the_keyring(self, by: int, _: int, __: int) -> None:
        self.scene.deletes(self.by(by), self.scene.payments)

    def changes_the_policy(self, by: int, one: int, other: int) -> None:
        names = ["keyring.delete", "member.remove"][: one % 3]
        change = {"dual_control": names} if other % 2 else {"minimum_rsa_bits": 3072}
        self.by(by).ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=change))

    def approves_all(self, by: int, _: int, __: int) -> None:
        for each in self.scene.listed():
            with suppress(LnhError):
                approve(self.by(by), each.id)


TRIES: Final = [name for name in vars(Alone) if name[0].islower() and name != "by"]


@settings(max_examples=sized(40), deadline=None)
@example([("resets", 0, 3, 0), ("logs_in", 0, 0, 1), ("deletes_a_user", 1, 0, 0)])  # a helpdesk's password and her own
@given(st.lists(st.tuples(st.sampled_from(TRIES), *[st.integers(0, 5)] * 3), max_size=40))
def test_whatever_one_admin_and_the_po_try_alone_nothing_that_is_named_is_done(
    tries: list[tuple[str, int, int, int]],
) -> None:
    alone = Alone()
    for name, *numbers in tries:
        with suppress(LnhError):
            getattr(alone, name)(*numbers)
    watcher = alone.scene.bob
    watcher.ask(admin.KEYRING_SHOW, admin.KeyringRef(keyring=alone.scene.payments))
    kept = watcher.ask(admin.CLUSTER_POLICY, admin.PolicyChange()).policy["dual_control"]
    assert list(kept) == ["keyring.delete", "user.delete"]
    users = {each.name: each.role for each in watcher.ask(admin.USER_LIST, Empty()).users}
    assert {
        "admin": "admin",
        "alice": "admin",
        "bob": "admin",
        "ada": "auditor",
        "hugo": "helpdesk",
    }.items() <= users.items()
    assert not any(each.operation == "approval.use" for each in alone.scene.world.audit)
