"""Orders about members at an hsm worker: who may give them, and what goes with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from lnh_common import errors
from lnh_common.messages import admin, hsm, membership, store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import Credential, Role
from lnh_services.hsm.cluster import removal_proof
from lnh_services.hsm.effects import Ask, Peer
from lnh_services.hsm.records import GROUPING_RECORD, GroupingRecord
from models.worker import ADMIN_PASSWORD, PO_PASSWORD, Client, World

OTHER = b"b" * 16
MEMBERS = tuple(
    membership.MemberState(
        id=name.encode() * 16,
        name=name,
        address="host:1",
        role="secondary",
        state="read-write",
        group=group,
        product="",
    )
    for name, group in (("a", "local"), ("b", "east"), ("c", "east"))
)
VIEW = membership.View(
    cluster=b"c" * 16, primary=b"a" * 16, epoch=1, members=MEMBERS, services=(), groups=("east", "local", "west")
)
ADMIN = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
PO = Credential(role=Role.PO, password=PO_PASSWORD)


class Cluster(World):
    """A world whose membership and core answer; `orders` are those that came to membership."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[Message] = []
        self.refusal: errors.LnhError | None = None
        self.while_ordered: Callable[[], object] = lambda: None
        self.meanwhile: dict[bytes, Callable[[], object]] = {}  # what happens before a connection's commit arrives

    def answer(self, asked: Ask) -> Message:
        if asked.peer is Peer.MEMBERSHIP:
            self.orders.append(asked.message)
            self.while_ordered()
            if self.refusal:
                raise self.refusal
            if asked.operation is membership.STATUS:
                return VIEW
            return membership.Done(remark="done")
        if isinstance(asked.message, store.Commit):
            self.meanwhile.pop(asked.message.session, lambda: None)()
        if asked.operation is hsm.INVITE:
            return hsm.Invited(text="an invitation", expires=9, identity="SHA256:x")
        return super().answer(asked)


@pytest.fixture
def world() -> Cluster:
    return Cluster()


def session(world: Cluster, *credentials: Credential) -> Client:
    client = Client(world, world.worker())
    client.login(*credentials)
    return client


BOTH: list[tuple[Operation[Any, Any], Message]] = [
    (admin.MEMBER_INVITE, Empty()),
    (admin.CLUSTER_LEAVE, admin.MemberRef(member=OTHER)),
    (admin.CLUSTER_DELETE, admin.MemberRef(member=OTHER)),
]
ADMINS: list[tuple[Operation[Any, Any], Message]] = [
    (admin.MEMBER_PROMOTE, admin.MemberRef(member=OTHER)),
    (admin.MEMBER_REMOVE, admin.MemberRef(member=OTHER)),
    (admin.MEMBER_DELETE, admin.DeleteMember(member=OTHER)),
]


@pytest.mark.parametrize(("operation", "message"), BOTH, ids=lambda value: getattr(value, "name", ""))
def test_an_admin_and_the_po_together_and_neither_alone(
    world: Cluster, operation: Operation[Any, Any], message: Message
) -> None:
    for alone in (ADMIN, PO):
        with pytest.raises(errors.PermissionDenied):
            session(world, alone).ask(operation, message)
    assert world.orders == []
    session(world, ADMIN, PO).ask(operation, message)
    assert world.audit[-1].operation == operation.name


@pytest.mark.parametrize(("operation", "message"), ADMINS, ids=lambda value: getattr(value, "name", ""))
def test_an_admin_and_nobody_less(world: Cluster, operation: Operation[Any, Any], message: Message) -> None:
    administrator = session(world, ADMIN)
    add = admin.AddUser(name="operator", role="operator", password="operator password")
    administrator.ask(admin.USER_ADD, add)
    with pytest.raises(errors.PermissionDenied):
        session(world, Credential(role=Role.USER, name="operator", password="operator password")).ask(
            operation, message
        )
    assert world.orders == []
    assert administrator.ask(operation, message).remark == "done"
    assert world.audit[-1].target == OTHER.hex()


GROUPS: list[tuple[Operation[Any, Any], Message, str]] = [
    (admin.GROUP_CREATE, admin.NewGroup(label="east"), "east"),
    (admin.GROUP_DELETE, admin.GroupRef(label="east"), "east"),
    (admin.MEMBER_MOVE, admin.MoveMember(member=OTHER, group="east"), f"{OTHER.hex()}/east"),
]


@pytest.mark.parametrize(("operation", "message", "target"), GROUPS, ids=lambda value: getattr(value, "name", ""))
def test_an_operator_changes_groups_and_who_may_only_look_does_not(
    world: Cluster, operation: Operation[Any, Any], message: Message, target: str
) -> None:
    administrator = session(world, ADMIN)
    for role in ("operator", "monitor"):
        administrator.ask(admin.USER_ADD, admin.AddUser(name=role, role=role, password=f"{role} password"))
    operator, monitor = (
        session(world, Credential(role=Role.USER, name=role, password=f"{role} password"))
        for role in ("operator", "monitor")
    )
    with pytest.raises(errors.PermissionDenied):
        monitor.ask(operation, message)
    assert world.orders == []
    assert operator.ask(operation, message).remark == "done"
    assert (world.audit[-1].operation, world.audit[-1].target) == (operation.name, target)
    found = monitor.ask(admin.GROUP_LIST, Empty()).groups
    assert [(each.label, each.members) for each in found] == [("east", ("b", "c")), ("local", ("a",)), ("west", ())]


@pytest.mark.parametrize(("operation", "message", "target"), GROUPS, ids=lambda value: getattr(value, "name", ""))
def test_groups_are_not_changed_while_a_restore_puts_them_back(
    world: Cluster, operation: Operation[Any, Any], message: Message, target: str
) -> None:
    administrator = session(world, ADMIN)
    records = world.run(administrator.worker.started())
    note = records.put(GroupingRecord(groups=("far",), placed=()), GROUPING_RECORD, 0)
    commit(world, note)
    with pytest.raises(errors.Busy, match="are being put back"):
        administrator.ask(operation, message)
    assert world.orders == [], target
    commit(world, store.Delete(key=note.key))
    assert administrator.ask(operation, message).remark == "done"


def commit(world: Cluster, *changes: store.Change) -> None:
    made = store.Commit(
        client=world.cluster, session=os.urandom(16), sequence=1, issued_at=int(world.now * 1000), changes=changes
    )
    world.store.answer(made, int(world.now * 1000))


def test_every_try_of_a_change_of_groups_has_one_name_and_no_other_request_has_it(world: Cluster) -> None:
    administrator = session(world, ADMIN)
    order = admin.MoveMember(member=OTHER, group="east")
    sent, keys = administrator.sealed(admin.MEMBER_MOVE, order)
    for _ in range(2):
        administrator.open(admin.MEMBER_MOVE, sent, keys, world.serve(administrator.worker, sent))
    administrator.ask(admin.MEMBER_MOVE, order)
    session(world, ADMIN).ask(admin.MEMBER_MOVE, order)
    names = [each.request for each in world.orders if isinstance(each, store.MoveMember)]
    assert len(names) == 4
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_a_removal_goes_with_a_dismissal_that_is_kept_for_who_did_not_hear(world: Cluster) -> None:
    session(world, ADMIN).ask(admin.MEMBER_REMOVE, admin.MemberRef(member=OTHER))
    (order,) = world.orders
    assert isinstance(order, membership.Remove)
    assert removal_proof.is_dismissed([world.secrets.smk[0].key], world.cluster, OTHER, order.proof)
    for smk, cluster, member in (
        (os.urandom(32), world.cluster, OTHER),
        (world.secrets.smk[0].key, os.urandom(16), OTHER),
        (world.secrets.smk[0].key, world.cluster, os.urandom(16)),
    ):
        assert not removal_proof.is_dismissed([smk], cluster, member, order.proof)
    kept = world.store.storage.get(store.Key(table=removal_proof.TABLE, id=OTHER))
    assert kept is not None
    assert kept.head == order.proof


def test_a_dismissal_is_kept_though_the_lease_changed_during_the_order(
    world: Cluster,
) -> None:
    client = session(world, ADMIN)

    def lapse() -> None:
        client.worker.lapses += 1

    world.while_ordered = lapse
    assert client.ask(admin.MEMBER_DELETE, admin.DeleteMember(member=OTHER)).remark == "done"
    assert world.store.storage.get(store.Key(table=removal_proof.TABLE, id=OTHER)) is not None


def forced(client: Client) -> str:
    return client.ask(admin.MEMBER_DELETE, admin.DeleteMember(member=OTHER, force=True)).remark


def test_a_removal_by_force_ends_every_session_and_leaves_the_next_alone(world: Cluster) -> None:
    administrator, other = session(world, ADMIN), session(world, ADMIN)
    elsewhere = Client(world, world.worker(), token=other.token, secret=other.secret)
    assert "log in again" in forced(administrator)
    for client in (administrator, other, elsewhere):
        with pytest.raises(errors.ClusterRestored, match="by force"):
            client.ask(admin.GROUP_LIST, Empty())
    after = session(world, ADMIN)
    after.ask(admin.GROUP_LIST, Empty())
    assert "log in again" in forced(after)
    with pytest.raises(errors.ClusterRestored):
        after.ask(admin.GROUP_LIST, Empty())
    session(world, ADMIN).ask(admin.GROUP_LIST, Empty())


@pytest.mark.parametrize("message", [admin.DeleteMember(member=OTHER), admin.DeleteMember(member=OTHER, force=True)])
def test_only_what_was_done_by_force_ends_sessions(world: Cluster, message: admin.DeleteMember) -> None:
    administrator, other = session(world, ADMIN), session(world, ADMIN)
    if message.force:
        world.refusal = errors.NotPossible("it answers")
        with pytest.raises(errors.NotPossible):
            administrator.ask(admin.MEMBER_DELETE, message)
        world.refusal = None
    else:
        administrator.ask(admin.MEMBER_DELETE, message)
    for client in (administrator, other):
        client.ask(admin.GROUP_LIST, Empty())


def test_a_change_under_way_when_sessions_end_is_not_made(world: Cluster) -> None:
    """It was checked before, and comes to the store after."""
    administrator, other = session(world, ADMIN), session(world, ADMIN)
    world.meanwhile[other.connection] = lambda: forced(administrator)
    with pytest.raises(errors.ClusterRestored, match="by force"):
        other.ask(admin.USER_ADD, admin.AddUser(name="late", role="monitor", password="monitor password"))
    after = session(world, ADMIN)
    assert [user.name for user in after.ask(admin.USER_LIST, Empty()).users] == ["admin"]


def test_a_removal_that_is_ordered_again_leaves_the_dismissal_that_is_kept(world: Cluster) -> None:
    administrator = session(world, ADMIN)
    for _ in range(2):
        assert administrator.ask(admin.MEMBER_REMOVE, admin.MemberRef(member=OTHER)).remark == "done"
    assert world.store.storage.get(store.Key(table=removal_proof.TABLE, id=OTHER)) is not None


def test_a_removal_that_was_refused_leaves_no_dismissal(world: Cluster) -> None:
    world.refusal = errors.NotPossible("b is the primary")
    with pytest.raises(errors.NotPossible):
        session(world, ADMIN).ask(admin.MEMBER_REMOVE, admin.MemberRef(member=OTHER))
    assert world.store.storage.get(store.Key(table=removal_proof.TABLE, id=OTHER)) is None


def test_the_same_removal_that_comes_twice_is_ordered_once(world: Cluster) -> None:
    administrator = session(world, ADMIN)
    sent, keys = administrator.sealed(admin.MEMBER_REMOVE, admin.MemberRef(member=OTHER))
    for _ in range(2):
        administrator.open(admin.MEMBER_REMOVE, sent, keys, world.serve(administrator.worker, sent))
    assert len(world.orders) == 1
