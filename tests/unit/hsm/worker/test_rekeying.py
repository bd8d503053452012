"""A keyring that is given another key: what ends, what is refused, and what is left of the key of before.

That nothing is lost, whatever comes in between, `tests/property/test_rekey.py` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

import lnh.keyrings
from lnh_common import errors
from lnh_common.errors import LnhError
from lnh_common.messages import admin, objects, store
from lnh_common.messages.admin import RekeyState
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.records import TABLES, RekeyRecord, ResealRecord
from lowered import lower
from models.keyring import Keyring

REKEY, RESEAL, STATE = admin.KEYRING_REKEY, admin.KEYRING_RESEAL, admin.KEYRING_REKEY_STATE


@pytest.fixture
def keyring() -> Keyring:
    made = Keyring.made()
    made.log_in(Role.KRSO)
    return made


def ask(keyring: Keyring, operation: Operation[Any, Any], message: Message | None = None) -> Any:
    return keyring.client.ask(operation, Empty() if message is None else message, keyring.id)


def begin(keyring: Keyring) -> RekeyState:
    state: RekeyState = ask(keyring, REKEY)
    keyring.log_in(Role.KRSO)
    return state


def rekeyed(keyring: Keyring) -> RekeyState:
    state = begin(keyring)
    while state.open:
        state = ask(keyring, RESEAL)
    return state


def items(keyring: Keyring) -> list[store.Item]:
    return keyring.client.world.store.storage.in_scope(store.OBJECTS, keyring.id)


def test_a_keyring_without_objects_has_another_key_after_one_step(keyring: Keyring) -> None:
    assert ask(keyring, STATE) == RekeyState(generation=1, open=False, done=0, objects=0, begun_at=0)
    state = begin(keyring)
    assert (state.generation, state.open) == (2, True)
    assert state.begun_at == int(keyring.client.world.now)
    state = ask(keyring, RESEAL)
    assert (state.generation, state.open, state.done, state.objects) == (2, False, 0, 0)
    assert rekeyed(keyring).generation == 3


def test_steps_are_of_so_many_objects_and_say_how_far_it_is(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, OBJECTS_PER_RESEAL=4)
    for _ in range(10):
        keyring.secret()
    begin(keyring)
    states = [ask(keyring, RESEAL) for _ in range(3)]
    assert [(state.done, state.objects, state.open) for state in states] == [
        (4, 10, True), (8, 10, True), (10, 10, False),
    ]  # fmt: skip
    assert all(item.version == 2 for item in items(keyring)), "each is sealed anew once"
    with pytest.raises(errors.NotPossible, match="newest key"):
        ask(keyring, RESEAL)


def test_what_is_made_meanwhile_is_not_sealed_again(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, OBJECTS_PER_RESEAL=1)
    old = keyring.secret()
    begin(keyring)
    new = keyring.secret()
    changed = keyring.set(old, LABEL="changed meanwhile")
    assert changed.version == 2
    assert [ask(keyring, RESEAL).open for _ in range(2)] == [True, False]
    versions = {item.key.id: item.version for item in items(keyring)}
    assert versions == {old.handle: 2, new.handle: 1}


def test_objects_of_sessions_end_with_them(keyring: Keyring) -> None:
    held = keyring.secret(TOKEN=False)
    assert isinstance(held, objects.SessionObject)
    rekeyed(keyring)
    use = objects.Use(handle=held.handle, sealed=held.sealed, mechanism=Mechanism.AES_GCM, data=b"data")
    with pytest.raises(errors.ObjectUnknown, match="not made in this session"):
        ask(keyring, objects.ENCRYPT, use)


def test_a_session_that_was_looked_at_before_it_moves_nothing(keyring: Keyring) -> None:
    keyring.secret(LABEL="mine")
    old, worker = replace(keyring.client), keyring.client.worker
    stale = worker.caches.sessions.get(old.token)
    assert stale is not None

    def asks(operation: Operation[Any, Any], message: Message) -> None:
        stale.alive = True
        worker.caches.sessions.put(old.token, stale)
        old.sequence = keyring.client.sequence = max(old.sequence, keyring.client.sequence)
        with pytest.raises((errors.Busy, errors.VersionConflict)):
            old.ask(operation, message, keyring.id)
        keyring.client.sequence = old.sequence

    aes = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={Attribute.VALUE_LEN.value: 32})
    begin(keyring)
    asks(RESEAL, Empty())
    asks(objects.GENERATE, aes)
    asks(admin.ROLE_SET, admin.SetRole(password="another password"))
    assert ask(keyring, RESEAL).done == 1
    asks(REKEY, Empty())
    asks(objects.GENERATE, aes)
    asks(objects.FIND, objects.Find())
    asks(objects.SHOW, objects.Show(handle=items(keyring)[0].key.id))
    assert ask(keyring, STATE).generation == 2
    (found,) = ask(keyring, objects.FIND, objects.Find()).objects
    assert found.attributes[Attribute.LABEL.value] == "mine"
    assert keyring.client.world.damage == []


def test_only_the_krso_gives_a_keyring_another_key_and_both_roles_see_how_far_it_is(keyring: Keyring) -> None:
    keyring.log_in(Role.KRCO)
    for operation in (REKEY, RESEAL):
        with pytest.raises(errors.PermissionDenied):
            ask(keyring, operation)
    assert not ask(keyring, STATE).open


def test_a_version_that_cannot_read_it_has_it_refused(keyring: Keyring) -> None:
    keyring.client.world.set_version("0.1")
    with pytest.raises(errors.NotPossible, match=r"once the cluster's version is 0\.2; it is 0\.1"):
        ask(keyring, REKEY)
    assert ask(keyring, STATE).generation == 1


def test_an_object_that_no_longer_opens_stops_it_and_the_key_of_before_stays(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, OBJECTS_PER_RESEAL=1)
    first, second = keyring.secret(), keyring.secret()
    world = keyring.client.world
    at = (store.OBJECTS, keyring.id, second.handle)
    whole = world.store.storage.items[at]
    world.store.storage.items[at] = msgspec.structs.replace(whole, head=whole.head[:-1] + bytes([whole.head[-1] ^ 1]))
    begin(keyring)
    assert ask(keyring, RESEAL).done == 1
    for _ in range(2):
        with pytest.raises(errors.SealBroken, match=second.handle.hex()):
            ask(keyring, RESEAL)
    assert world.damage
    assert ask(keyring, STATE).open
    ask(keyring, objects.SHOW, objects.Show(handle=first.handle))
    world.store.storage.items[at] = whole
    assert not ask(keyring, RESEAL).open
    ask(keyring, objects.SHOW, objects.Show(handle=second.handle))


def test_with_the_keyring_all_that_is_known_of_its_keys_goes(keyring: Keyring) -> None:
    keyring.secret()
    begin(keyring)
    ask(keyring, RESEAL)
    administrator = keyring.client.as_administrator()
    administrator.ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring.id))
    tables = {table for table, _, _ in keyring.client.world.store.storage.items}
    assert not tables & {TABLES[RekeyRecord], TABLES[ResealRecord], store.OBJECTS}
    with pytest.raises((errors.KeyringUnknown, errors.CredentialChanged)):
        ask(keyring, STATE)
    assert keyring.client.world.damage == [], "what went with the keyring is missed by nobody"


def test_both_roles_log_in_with_the_passwords_they_have_and_find_by_label(keyring: Keyring) -> None:
    keyring.secret(LABEL="mine")
    find = objects.Find(template={Attribute.LABEL.value: "mine"})
    begin(keyring)
    for role in (Role.KRCO, Role.KRSO):
        keyring.log_in(role)
        assert len(ask(keyring, objects.FIND, find).objects) == 1
    ask(keyring, RESEAL)
    for role in (Role.KRCO, Role.KRSO):
        keyring.log_in(role)
        assert len(ask(keyring, objects.FIND, find).objects) == 1


class Losing(Keyring):
    """Its answers get lost as often as is said."""

    lost: dict[str, list[LnhError]]

    def ask(self, operation: Operation[Any, Any], message: Message) -> Any:
        """Ask, and lose the answer where one is to be lost."""
        reply = self.client.ask(operation, message, self.id)
        if left := self.lost.get(operation.name):
            raise left.pop()
        return reply

    def rekey_state(self) -> Any:
        """As `KeyringSession.rekey_state`."""
        return self.ask(STATE, Empty())

    def abandon(self) -> None:
        """As `Session.abandon`."""

    @contextmanager
    def login(self, role: Role, _password: str) -> Iterator[Losing]:
        """As `lnh.Keyring.login`."""
        self.log_in(role)
        yield self


@pytest.mark.parametrize(
    "lost",
    [
        {},
        {REKEY.name: [errors.CredentialChanged("an earlier try of it ended the session")]},
        {RESEAL.name: [errors.VersionConflict("an object was changed at that moment")] * 3},
    ],
)
def test_the_sdk_goes_on_until_it_is_through_and_gives_one_key_alone(
    keyring: Keyring, lost: dict[str, list[LnhError]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, OBJECTS_PER_RESEAL=2)
    for _ in range(7):
        keyring.secret()
    losing = Losing(replace(keyring.client), keyring.id)
    losing.lost = lost
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    state = lnh.keyrings.Keyring.rekey(losing, "its password", progress=progress)  # type: ignore[arg-type]
    assert (state.generation, state.open) == (2, False)
    assert told[-1] == (7, 7)
    assert told == sorted(told)


def test_the_sdk_goes_on_with_what_somebody_began(keyring: Keyring) -> None:
    keyring.secret()
    begin(keyring)
    losing = Losing(keyring.client, keyring.id)
    losing.lost = {}
    assert lnh.keyrings.Keyring.rekey(losing, "its password").generation == 2  # type: ignore[arg-type]
