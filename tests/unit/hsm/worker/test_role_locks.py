"""Which roles of a keyring are locked, for whom and until when, over the real channel; and rekeys that are not through."""

from __future__ import annotations

import pytest

from lnh_common import limits
from lnh_common.errors import KeyringUnknown, PasswordIncorrect, PasswordLocked
from lnh_common.messages import admin, objects
from lnh_common.messages.admin import RoleLock
from lnh_common.messages.base import Empty
from lnh_common.messages.overview import OVERVIEW
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from models.worker import ADMIN_PASSWORD, KRCO, KRSO, Client, World, make_keyring


class Scene:
    """A keyring, and machines that try its passwords."""

    def __init__(self) -> None:
        self.world = World()
        self.machine = Client(self.world, self.world.worker()).register()
        self.keyring = make_keyring(self.machine)

    def locks(self, by: str = "admin") -> tuple[RoleLock, ...]:
        if by == "admin":
            asker = self.machine.as_administrator()
        else:
            asker = Client(self.world, self.machine.worker)
            asker.login(Credential(role=Role.USER, name=by, password=ADMIN_PASSWORD))
        return asker.ask(admin.ROLE_LOCKS, admin.KeyringRef(keyring=self.keyring)).locks

    def fail(self, role: Role, times: int, client: Client | None = None) -> None:
        for number in range(times):
            with pytest.raises((PasswordIncorrect, PasswordLocked)):
                self.log_in(role, f"no password {number}", client)

    def log_in(self, role: Role, password: str, client: Client | None = None) -> None:
        (client or self.machine).login(Credential(role=role, keyring=self.keyring, password=password))

    @property
    def now(self) -> int:
        return int(self.world.now)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nobody_is_locked_before_ten_failures_and_the_client_is_named_after_them(scene: Scene) -> None:
    assert scene.locks() == ()
    scene.fail(Role.KRCO, limits.FAILURES_BEFORE_LOCK - 1)
    assert scene.locks() == ()
    scene.fail(Role.KRCO, 1)
    until = scene.now + limits.LOCK_SECONDS
    (lock,) = scene.locks()
    assert (lock.role, lock.until) == (Role.KRCO, until)
    assert lock.client == "client"
    with pytest.raises(PasswordLocked):
        scene.log_in(Role.KRCO, KRCO)
    scene.world.now = until - 1
    assert [each.until for each in scene.locks()] == [until]
    scene.world.now = until
    assert scene.locks() == ()
    scene.log_in(Role.KRCO, KRCO)


def test_a_monitor_hears_that_a_client_is_locked_and_not_which(scene: Scene) -> None:
    by = scene.machine.as_administrator()
    by.ask(admin.USER_ADD, admin.AddUser(name="mona", role="monitor", password=ADMIN_PASSWORD))
    scene.fail(Role.KRSO, limits.FAILURES_BEFORE_LOCK)
    assert [(each.role, each.client) for each in scene.locks("mona")] == [(Role.KRSO, "a client")]


def test_of_a_role_that_many_fail_at_it_is_said_until_when_nobody_may(scene: Scene) -> None:
    scene.log_in(Role.KRCO, KRCO)
    first, second = (Client(scene.world, scene.machine.worker).register(name) for name in ("first", "second"))
    for client in (first, second):
        scene.fail(Role.KRCO, limits.FAILURES_BEFORE_LOCK, client)
    locks = scene.locks()
    assert [each.client for each in locks][:1] == [""]
    assert {each.client for each in locks} == {"", "first", "second"}
    assert locks[0].until == scene.now + 1, "the twentieth failure holds up the next attempt for a second"
    scene.log_in(Role.KRCO, KRCO)  # this client did before
    third = Client(scene.world, scene.machine.worker).register("third")
    with pytest.raises(PasswordLocked):
        scene.log_in(Role.KRCO, KRCO, third)
    scene.world.now += 1
    scene.log_in(Role.KRCO, KRCO, third)


def test_a_role_that_stays_locked_is_so_until_somebody_unlocks_it(scene: Scene) -> None:
    scene.machine.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"lock_after": 1}))
    scene.fail(Role.KRSO, 1)
    assert scene.locks() == (RoleLock(role=Role.KRSO),)
    unlock = admin.Unlock(role=Role.KRSO, keyring=scene.keyring)
    scene.machine.as_administrator().ask(admin.USER_UNLOCK, unlock)
    assert scene.locks() == ()


def test_a_keyring_that_is_not_there_has_no_locks(scene: Scene) -> None:
    with pytest.raises(KeyringUnknown):
        scene.machine.as_administrator().ask(admin.ROLE_LOCKS, admin.KeyringRef(keyring=bytes(16)))


def test_a_rekey_that_is_not_through_is_told_until_it_is(scene: Scene) -> None:
    def told() -> list[tuple[str, int]]:
        seen = scene.machine.as_administrator().ask(OVERVIEW, Empty())
        return [(each.label, each.begun_at) for each in seen.rekeys]

    scene.log_in(Role.KRSO, KRSO)
    aes = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={Attribute.VALUE_LEN.value: 32})
    scene.machine.ask(objects.GENERATE, aes, scene.keyring)
    assert told() == []
    scene.log_in(Role.KRSO, KRSO)
    scene.machine.ask(admin.KEYRING_REKEY, Empty(), scene.keyring)
    begun = scene.now
    scene.world.now += 3600
    assert told() == [("payments", begun)]
    scene.log_in(Role.KRSO, KRSO)
    scene.machine.ask(admin.KEYRING_RESEAL, Empty(), scene.keyring)
    assert told() == []
