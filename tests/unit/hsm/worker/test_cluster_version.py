"""The cluster's version: what waits for it, who raises it, and what a member of an older version does then."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lnh_common
from lnh_common import errors, versions
from lnh_common.messages import admin, membership, objects, smk, store
from lnh_common.messages.base import OPERATIONS, Effect, Empty, Message, Operation, Seal
from lnh_common.messages.session import Credential, Role
from lnh_services.hsm.effects import Ask
from lnh_services.hsm.records import ClusterRecord
from models.carried import sample
from models.keyring import Keyring
from models.worker import ADMIN_PASSWORD, PO_PASSWORD, Client, World

DATA = Path(__file__).parents[3] / "data"
CREDENTIALS = (
    Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD),
    Credential(role=Role.PO, password=PO_PASSWORD),
)
NEW = [each for each in OPERATIONS.values() if each.since != versions.FIRST]
# Writes that members of 0.1 do not know either, and of which they read all that comes of it.
READ_BEFORE = {
    "backup.delete", "backup.now", "backup.schedule", "backup.verify", "backup.write", "cluster.upgrade", "object.generate-many",
    "object.generate-pairs", "smk.backup", "user.reset", "user.unlock",
}  # fmt: skip


class Members(World):
    """A world whose membership lists these versions."""

    def __init__(self, *products: str, state: str = "read-write") -> None:
        super().__init__()
        self.products = products
        self.state = state

    def answer(self, asked: Ask) -> Message:
        answer = super().answer(asked)
        if asked.operation is not membership.STATUS:
            return answer
        assert isinstance(answer, membership.View)
        one = msgspec.structs.replace(sample(membership.MemberState), state=self.state)
        members = [
            msgspec.structs.replace(one, name=f"member-{number}", product=product)
            for number, product in enumerate(self.products)
        ]
        return msgspec.structs.replace(answer, members=tuple(members))


def administrator(world: World) -> Client:
    client = Client(world, world.worker())
    client.login(*CREDENTIALS)
    return client


def product(world: World) -> str:
    records = world.worker()
    return world.run(records.started()).product


def test_a_write_that_the_version_before_did_not_know_waits_for_the_clusters_version() -> None:
    said = json.loads((DATA / "0.1" / "messages.json").read_text())["clients"]
    known = {each["name"].partition(" ")[0] for each in said}
    writes = {each.name for each in OPERATIONS.values() if each.seal is not Seal.NONE and each.effect is Effect.WRITE}
    since = {each.name for each in NEW}
    assert writes - known == since | READ_BEFORE | {name for name in writes - known if name.endswith("-in-session")}, (
        "what it stores is in no session of the SDK's, and a member of 0.1 may have to read it"
    )
    assert not since & (known | READ_BEFORE)
    assert {each.since for each in NEW} == {versions.minor(lnh_common.VERSION)}


@pytest.fixture(scope="module")
def sessions() -> list[tuple[Client, bytes]]:
    """Of whoever may ask for what waits: an admin with the PO, and both roles of a keyring."""
    keyring = Keyring.made()
    world = keyring.client.world
    others: list[Client] = []
    for role in (Role.KRSO, Role.KRCO):
        keyring.log_in(role)
        others.append(replace(keyring.client, connection=os.urandom(16)))
    world.set_version(versions.FIRST)
    return [(administrator(world), b""), *((each, keyring.id) for each in others)]


@pytest.mark.parametrize("operation", NEW, ids=lambda each: each.name)
def test_what_is_new_in_a_version_is_refused_until_the_cluster_has_it(
    sessions: list[tuple[Client, bytes]], operation: Operation[Any, Any]
) -> None:
    refusals = []
    for client, route in sessions:
        with pytest.raises((errors.NotPossible, errors.PermissionDenied)) as caught:
            client.ask(operation, sample(operation.request), route)
        refusals.append(caught.value)
    (refused,) = {str(each) for each in refusals if isinstance(each, errors.NotPossible)}
    assert refused == f"{operation.name} is served once the cluster's version is {operation.since}; it is 0.1"
    assert any("lnh cluster upgrade" in str(each.detail.get("advice")) for each in refusals)


def test_the_version_is_raised_once_every_member_has_it_and_what_is_new_is_served() -> None:
    world = Members("0.2.0", "0.1.7", "")
    world.set_version("0.1")
    alice = administrator(world)
    shown = alice.ask(admin.CLUSTER_VERSION, Empty())
    assert (shown.product, shown.newest, shown.waits_for) == ("0.1", "0.2", ("member-1", "member-2"))
    with pytest.raises(errors.NotPossible, match="it waits for member-1, member-2"):
        alice.ask(admin.CLUSTER_UPGRADE, Empty())
    assert product(world) == "0.1"
    world.products, world.state = ("0.2.0", "0.2.1"), "unreachable"
    with pytest.raises(errors.NotPossible, match="it waits for member-0, member-1"):
        alice.ask(admin.CLUSTER_UPGRADE, Empty())
    world.state = "read-write"
    before = len(world.audit)
    assert alice.ask(admin.CLUSTER_UPGRADE, Empty()).product == "0.2"
    assert [each.operation for each in world.audit[before:]] == ["cluster.upgrade"]
    assert product(world) == "0.2"
    assert alice.ask(admin.CLUSTER_UPGRADE, Empty()).product == "0.2", "once more changes nothing"
    alice.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name="clerk", permissions=(admin.Permission.VIEW,)))


def test_the_version_is_never_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Members("0.2.0")
    alice = administrator(world)
    with monkeypatch.context() as other:
        other.setattr(lnh_common, "VERSION", "0.3.0")
        world.products = ("0.3.0",)
        assert alice.ask(admin.CLUSTER_UPGRADE, Empty()).product == "0.3"
    assert alice.ask(admin.CLUSTER_UPGRADE, Empty()).product == "0.3"
    with pytest.raises(errors.UnsupportedVersion):
        product(world)


def test_what_is_under_way_while_the_version_is_raised_is_made_anew() -> None:
    world = World()
    world.set_version("0.1")
    keyring = Keyring.made(Client(world, world.worker()).register())
    answer = world.answer

    def raised(asked: Ask) -> Message:
        if isinstance(asked.message, store.Commit) and asked.message.session == keyring.client.connection:
            world.answer = answer  # type: ignore[method-assign]
            world.set_version("0.2")
        return answer(asked)

    world.answer = raised  # type: ignore[method-assign]  # it is raised before the commit is applied
    with pytest.raises(errors.SmkRolled):
        keyring.secret()
    keyring.secret()


def test_a_member_of_an_older_version_than_the_clusters_serves_nobody_and_says_why() -> None:
    world = World()
    keyring = Keyring.made(Client(world, world.worker()).register())
    key = keyring.secret()
    world.set_version("0.3")
    with pytest.raises(errors.UnsupportedVersion, match=r"version is 0\.3, and this member runs 0\.2") as caught:
        keyring.client.ask(objects.SHOW, objects.Show(handle=key.handle), keyring.id)
    assert caught.value.of_damage, "the client asks another member"
    assert "install version 0.3" in str(caught.value.detail["advice"])
    assert any("0.3" in each for each in world.damage)


def test_the_clusters_record_of_a_version_before_is_written_as_that_version_reads_it() -> None:
    own = ClusterRecord(id=b"i" * 16, label="it", instance=b"n" * 16, created_at=1)
    assert set(msgspec.to_builtins(own)) == {"id", "label", "instance", "created_at"}
    assert smk.SMK_SHOW.since == versions.FIRST


@pytest.mark.parametrize(
    ("product", "since", "found"),
    [
        ("0.2.0", "0.2", True), ("0.10.1", "0.2", True), ("1.0.0", "0.9", True), ("0.1.9", "0.2", False),
        ("", "0.1", False), ("0.x", "0.1", False),
    ],
)  # fmt: skip
def test_versions_are_compared_by_their_numbers(product: str, since: str, found: bool) -> None:
    assert versions.is_since(product, since) is found
    assert versions.latest(["0.2", "0.10", "0.9"]) == "0.10"
    assert versions.latest([]) == versions.FIRST
