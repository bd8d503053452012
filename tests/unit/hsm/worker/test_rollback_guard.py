"""Records a store cannot forge, nor take back: what the HSM used is not used older again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lnh_common import errors
from lnh_common.messages import admin, objects, session, store
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.hsm import Mark
from lnh_common.messages.session import ChangePassword, Credential, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import frames as wire
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.effects import Ask, Peer
from lnh_services.hsm.records import record_id
from lnh_services.hsm.worker.policies import policy_id
from lnh_services.hsm.worker.request import objects_named
from lnh_services.hsm.worker.rollback_guard import AS_KNOWN, Ahead, HighestSeen, Items
from lowered import lower
from models.worker import KRCO, KRSO, Client, World, make_keyring

Place = tuple[str, bytes, bytes]


class Hostile:
    """A store that keeps what it once held, and puts it back behind the HSM's back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept = dict(world.store.storage.items)

    def put_back(self, *places: Place) -> None:
        items = self.world.store.storage.items
        for place in places:
            if place in self.kept:
                items[place] = self.kept[place]
            else:
                items.pop(place, None)

    def invalidate_all(self) -> None:
        """A store may make the workers read again, whenever it likes."""
        for worker in self.world.workers:
            worker.invalidate(store.Invalidate(sequence=0, keys=(), everything=True))


def generate(client: Client, keyring: bytes) -> objects.ObjectView:
    template: dict[int, Any] = {Attribute.VALUE_LEN.value: 32, Attribute.LABEL.value: "old"}
    return client.ask(
        objects.GENERATE, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template), keyring
    )


def encrypt(client: Client, keyring: bytes, handle: bytes) -> None:
    client.ask(objects.ENCRYPT, objects.Use(handle=handle, mechanism=Mechanism.AES_GCM, data=b"data"), keyring)


def relabel(client: Client, keyring: bytes, handle: bytes) -> None:
    change = objects.SetAttributes(handle=handle, template={Attribute.LABEL.value: "new"})
    client.ask(objects.SET, change, keyring)


@pytest.mark.parametrize("other_worker", [False, True])
def test_an_older_version_of_an_object_is_refused(
    world: World, client: Client, keyring: bytes, other_worker: bool
) -> None:
    made = generate(client, keyring)
    hostile = Hostile(world)
    relabel(client, keyring, made.handle)
    hostile.put_back(("object", keyring, made.handle))
    hostile.invalidate_all()
    if other_worker:
        client.worker = world.worker()
    with pytest.raises(errors.StateRolledBack, match=r"version 1 .* version 2"):
        encrypt(client, keyring, made.handle)
    assert world.audit[-1].outcome == "StateRolledBack"
    with pytest.raises(errors.StateRolledBack):
        client.ask(objects.SHOW, objects.Show(handle=made.handle), keyring)
    with pytest.raises(errors.StateRolledBack):
        client.ask(objects.DESTROY, objects.Destroy(handle=made.handle), keyring)
    with pytest.raises(errors.StateRolledBack):
        client.ask(objects.FIND, objects.Find(), keyring)
    other = generate(client, keyring)
    encrypt(client, keyring, other.handle)


def asked_by(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question that a worker waits for, from now on."""
    asked: list[str] = []
    answer = world.answer

    def noted(one: Ask) -> Message:
        if one.waits:
            asked.append(one.operation.name)
        return answer(one)

    monkeypatch.setattr(world, "answer", noted)
    return asked


def test_an_age_that_was_asked_ahead_is_good_for_one_reading(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generate(client, keyring)
    ahead = Ahead((store.Key(table=store.OBJECTS, scope=keyring, id=made.handle),))
    asked = asked_by(world, monkeypatch)
    items = Items(world.cluster, b"an instance", lambda _: None)
    world.run(items.get_each([], ahead))
    for _ in range(2):
        found = world.run(items.get(ahead.keys[0], lambda item: item, ahead=ahead))
        assert found.version == 1
    assert asked == ["core.seen", "store.get-each", "core.seen", "store.get"]


def test_what_names_no_object_is_not_asked_ahead() -> None:
    header = wire.request("key.uses", 1, 1000, route=bytes(16))
    handle = bytes(range(16))
    fitting = [["key.sign", {"handle": handle}], ["key.sign", {"handle": handle}]]
    wrong: list[Any] = [
        {}, {"handle": None}, {"handle": b"short"}, {"handle": [handle]}, {"handle": handle, "sealed": b"carried"},
        {"uses": None}, {"uses": [None, [], ["key.sign"], ["key.sign", None], ["key.sign", {"handle": {}}]]},
    ]  # fmt: skip
    assert [objects_named(header, fields) for fields in wrong] == [()] * len(wrong)
    (named,) = objects_named(header, {"uses": fitting})
    assert (named.scope, named.id) == (bytes(16), handle)
    assert objects_named(header, {"handle": handle}) == (named,)


def test_a_destroyed_key_does_not_come_back(world: World, client: Client, keyring: bytes) -> None:
    made = generate(client, keyring)
    hostile = Hostile(world)
    client.ask(objects.DESTROY, objects.Destroy(handle=made.handle), keyring)
    with pytest.raises(errors.ObjectUnknown):
        encrypt(client, keyring, made.handle)
    hostile.put_back(("object", keyring, made.handle))
    with pytest.raises(errors.StateRolledBack):
        encrypt(client, keyring, made.handle)


def test_a_logout_is_not_undone_by_losing_its_record(world: World, client: Client, keyring: bytes) -> None:
    hostile = Hostile(world)
    client.ask(session.LOGOUT, session.Logout())
    hostile.put_back(*(place for place in world.store.storage.items if place[0] == "logout"))
    hostile.invalidate_all()
    with pytest.raises(errors.StateRolledBack):
        client.ask(objects.FIND, objects.Find(), keyring)


def test_a_revoked_client_is_not_let_in_again(world: World, client: Client, keyring: bytes) -> None:
    hostile = Hostile(world)
    client.as_administrator().ask(admin.CLIENT_REVOKE, admin.ClientRef(client="client"))
    hostile.put_back(("client", b"", client.id))
    hostile.invalidate_all()
    with pytest.raises(errors.StateRolledBack):
        client.ask(objects.FIND, objects.Find(), keyring)
    with pytest.raises(errors.StateRolledBack):
        client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))


def test_a_changed_password_is_not_changed_back(world: World, client: Client, keyring: bytes) -> None:
    hostile = Hostile(world)
    credential = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=credential, new="another password"))
    hostile.put_back(("credential", b"", credentials.credential_id(Role.KRCO, "", keyring)))
    with pytest.raises(errors.StateRolledBack):
        client.login(credential)


@pytest.mark.parametrize("lost", [False, True])
def test_a_stricter_policy_is_not_loosened(world: World, client: Client, keyring: bytes, lost: bool) -> None:
    hostile = Hostile(world)
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    for limit in (2, 1):
        client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": limit}), keyring)
        if limit == 2 and not lost:
            hostile = Hostile(world)
    hostile.put_back(("policy", b"", policy_id(keyring)))
    hostile.invalidate_all()
    with pytest.raises(errors.StateRolledBack):
        generate(client, keyring)


@pytest.mark.parametrize("caches", [False, True])
def test_a_policy_that_went_with_its_keyring_is_missed_by_nobody(
    world: World, client: Client, keyring: bytes, caches: bool
) -> None:
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 100}), keyring)
    generate(client, keyring)
    client.as_administrator().ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring))
    if not caches:
        client.worker.drop_everything()
    with pytest.raises((errors.KeyringUnknown, errors.CredentialChanged)):
        generate(client, keyring)
    assert world.damage == []


def test_a_user_deleted_and_added_again_is_another_one_and_the_old_one_stays_dead(world: World, client: Client) -> None:
    administrator = client.as_administrator()
    administrator.ask(admin.USER_ADD, admin.AddUser(name="eve", role="admin", password="first password"))
    first = Credential(role=Role.USER, name="eve", password="first password")
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=first, new="second password"))
    hostile = Hostile(world)
    second = Credential(role=Role.USER, name="eve", password="second password")
    client.login(second)
    administrator.ask(admin.USER_DELETE, admin.UserRef(name="eve"))
    user, credential = ("user", b"", record_id("user", "eve")), ("credential", b"", credentials.credential_id(Role.USER, "eve"))  # fmt: skip
    hostile.put_back(user, credential)
    with pytest.raises(errors.StateRolledBack):
        client.login(second)
    for place in (user, credential):
        del world.store.storage.items[place]
    world.now += 1
    administrator.ask(admin.USER_ADD, admin.AddUser(name="eve", role="monitor", password="third password"))
    client.login(Credential(role=Role.USER, name="eve", password="third password"))
    hostile.put_back(user, credential)
    hostile.invalidate_all()
    with pytest.raises(errors.StateRolledBack):
        client.login(second)


def test_a_restore_begins_anew(world: World, client: Client, keyring: bytes) -> None:
    made = generate(client, keyring)
    hostile = Hostile(world)
    relabel(client, keyring, made.handle)
    hostile.put_back(("object", keyring, made.handle))
    world.renew_instance()
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    encrypt(client, keyring, made.handle)


def test_what_is_cached_costs_no_question(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generate(client, keyring)
    encrypt(client, keyring, made.handle)
    asked: list[Ask] = []
    answer = world.answer

    def listening(ask: Ask) -> Any:
        asked.append(ask)
        return answer(ask)

    monkeypatch.setattr(world, "answer", listening)
    encrypt(client, keyring, made.handle)
    assert asked == []
    client.worker = world.worker()
    encrypt(client, keyring, made.handle)
    assert {ask.peer for ask in asked} == {Peer.STORE, Peer.CORE}


def test_a_listing_that_changes_while_it_is_read_is_read_again(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generate(client, keyring)
    other = Client(world, world.worker(), key=client.key, id=client.id)
    other.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    answer, scans = world.answer, []

    def changing(ask: Ask) -> Any:
        reply = answer(ask)
        if isinstance(ask.message, store.Scan):
            scans.append(ask)
            if len(scans) == 1:
                relabel(other, keyring, made.handle)
        return reply

    monkeypatch.setattr(world, "answer", changing)
    found = client.ask(objects.FIND, objects.Find(), keyring)
    assert [each.attributes[Attribute.LABEL] for each in found.objects] == ["new"]
    assert len(scans) == 2


def mark(item: int, version: int, born: int = 0) -> Mark:
    return Mark(item=item.to_bytes(16, "big"), born=born, version=version)


def test_the_table_keeps_the_highest_and_forgets_what_was_used_longest_ago() -> None:
    seen = HighestSeen(3)
    assert seen.note([mark(1, 2), mark(1, 1), mark(2, 5)]) == [(0, 2), (0, 2), (0, 5)]
    assert seen.note([mark(1, 0)]) == [(0, 2)]
    seen.note([mark(3, 1), mark(4, 1)])
    assert len(seen) == 3
    assert seen.note([mark(2, 0), mark(1, 0), mark(9, 0)]) == [(0, 0), (0, 2), (0, 0)]
    assert len(seen) == 3
    assert seen.note([mark(1, 1, born=7), mark(1, 9, born=6), mark(1, 4, born=AS_KNOWN)]) == [(7, 1), (7, 1), (7, 4)]


def test_a_user_list_of_before_a_deletion_is_refused(world: World, client: Client) -> None:
    administrator = client.as_administrator()
    administrator.ask(admin.USER_ADD, admin.AddUser(name="eve", role="admin", password="first password"))
    hostile = Hostile(world)
    administrator.ask(admin.USER_LIST, Empty())
    administrator.ask(admin.USER_DELETE, admin.UserRef(name="eve"))
    hostile.put_back(("user", b"", record_id("user", "eve")))
    with pytest.raises(errors.StateRolledBack):
        administrator.ask(admin.USER_LIST, Empty())


def test_what_the_store_served_wrongly_marks_the_member_damaged(world: World, client: Client, keyring: bytes) -> None:
    made = generate(client, keyring)
    place = ("object", keyring, made.handle)
    items = world.store.storage.items
    items[place] = msgspec.structs.replace(items[place], body=bytes(len(items[place].body)))
    with pytest.raises(errors.SealBroken) as refused:
        encrypt(client, keyring, made.handle)
    assert refused.value.of_damage
    assert len(world.damage) == 1
    sent, _ = client.sealed(objects.SHOW, objects.Show(handle=made.handle), keyring)
    items[place] = msgspec.structs.replace(items[place], head=bytes(len(items[place].head)))
    _, token, body = world.serve(client.worker, sent, forwarded=True)
    assert (token, body) == (b"", b""), "it is declined: another member does it"


def test_no_client_can_mark_a_member_damaged(world: World, client: Client, keyring: bytes) -> None:
    in_session = {Attribute.VALUE_LEN.value: 32, Attribute.TOKEN.value: False}
    made = client.ask(
        objects.GENERATE_IN_SESSION, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=in_session), keyring
    )
    forged = made.sealed[:-1] + bytes([made.sealed[-1] ^ 1])
    with pytest.raises(errors.ObjectUnknown) as refused:
        client.ask(objects.SHOW, objects.Show(handle=made.handle, sealed=forged), keyring)
    assert not refused.value.of_damage
    with pytest.raises(errors.ObjectUnknown):
        client.ask(objects.SHOW, objects.Show(handle=b"x" * 16), keyring)
    client.token = client.token[:-1] + bytes([client.token[-1] ^ 1])
    with pytest.raises(errors.LnhError):
        client.ask(objects.FIND, objects.Find(), keyring)
    with pytest.raises(errors.PasswordIncorrect):
        client.login(Credential(role=Role.KRCO, keyring=keyring, password="wrong password"))
    assert world.damage == []


def test_a_record_of_before_a_restore_read_with_the_one_after_it_is_no_damage(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store switches while a worker reads: what it reads next is of an instance that it has not heard of."""
    administrator = client.as_administrator()
    answer = world.answer
    looked: list[Ask] = []

    def switching(asked: Ask) -> Any:
        if isinstance(asked.message, store.Scan) and not looked:
            looked.append(asked)
            told, world.workers = world.workers, []  # nobody is told in time
            world.renew_instance()
            world.workers = told
        return answer(asked)

    monkeypatch.setattr(world, "answer", switching)
    with pytest.raises(errors.ClusterRestored):
        administrator.ask(admin.USER_LIST, Empty())
    assert looked
    assert world.damage == []


def test_a_listing_leaves_out_what_does_not_open_and_says_which_and_why(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, PAGE_ITEMS=3)
    made = [generate(client, keyring).handle for _ in range(8)]
    items = world.store.storage.items
    bad = [made[number] for number in (0, 3, 4, 5, 7)]  # a whole page of them, and the last
    for handle in bad:
        place = ("object", keyring, handle)
        items[place] = msgspec.structs.replace(items[place], head=bytes(len(items[place].head)))
    found: list[bytes] = []
    skipped: list[bytes] = []
    after, more = b"", True
    while more:
        page = client.ask(objects.FIND, objects.Find(after=after, limit=2), keyring)
        found += [each.handle for each in page.objects]
        skipped += [each.id for each in page.skipped]
        assert all(each.why for each in page.skipped)
        after, more = page.last, page.more
    assert found == sorted(set(made) - set(bad))
    assert skipped == sorted(bad)
    assert world.damage
    with pytest.raises(errors.SealBroken):
        encrypt(client, keyring, bad[0])
    encrypt(client, keyring, found[0])


@pytest.mark.parametrize("table", ["client", "keyring"])
def test_a_bad_row_is_left_out_of_its_list_and_of_no_decision(
    world: World, client: Client, keyring: bytes, table: str
) -> None:
    other = Client(world, client.worker).register("other")
    make_keyring(other, "another")
    administrator = client.as_administrator()
    for name in ("client", "other"):
        administrator.ask(admin.CLIENT_ASSIGN, admin.Assignment(client=name, keyring=keyring))
    items = world.store.storage.items
    at = {"client": ("client", b"", other.id), "keyring": ("keyring", b"", keyring)}[table]
    items[at] = msgspec.structs.replace(items[at], body=bytes(len(items[at].body)))
    world.workers[0].invalidate(store.Invalidate(sequence=0, keys=(), everything=True))
    world.attach(world.workers[0])
    if table == "client":
        clients = administrator.ask(admin.CLIENT_LIST, Empty())
        assert ([each.name for each in clients.clients], [each.id for each in clients.skipped]) == (
            ["client"],
            [other.id],
        )
        with pytest.raises(errors.SealBroken):  # another client may still have it: whether is not known
            administrator.ask(admin.CLIENT_UNASSIGN, admin.Assignment(client="client", keyring=keyring))
    else:
        keyrings = administrator.ask(admin.KEYRING_LIST, admin.ListKeyrings())
        assert ([each.label for each in keyrings.keyrings], [each.id for each in keyrings.skipped]) == (
            ["another"],
            [keyring],
        )
        with pytest.raises(errors.SealBroken):
            administrator.ask(admin.KEYRING_LIST, admin.ListKeyrings(label="payments"))
