"""Policy `lock_after`, over the real channel: who stays locked, who unlocks, and that nobody learns from it."""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import LnhError, NameUnknown, PasswordIncorrect, PermissionDenied
from lnh_common.messages import admin
from lnh_common.messages.admin import Permission
from lnh_common.messages.base import Empty
from lnh_common.messages.session import Credential, Role
from models.worker import ADMIN_PASSWORD, KRCO, PO_PASSWORD, Client, World, make_keyring
from sizes import sized

PASSWORD: Final = "a password of theirs"
MOST: Final = 3
LONG: Final = 2 * 24 * 3600


class Scene:
    """A cluster that locks after three failed logins; two admins, a helpdesk, an operator, and a keyring."""

    def __init__(self) -> None:
        self.world = World()
        self.machine = Client(self.world, self.world.worker()).register()
        self.admin = self.machine.as_administrator()
        self.admin.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name="helpdesk", permissions=(Permission.USERS,)))
        for name, role in {"alice": "admin", "hugo": "helpdesk", "olga": "operator"}.items():
            self.admin.ask(admin.USER_ADD, admin.AddUser(name=name, role=role, password=PASSWORD))
        self.keyring = make_keyring(self.machine)
        self.rule(MOST)

    def rule(self, most: int) -> None:
        self.machine.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"lock_after": most}))

    def credential(self, name: str, *, wrong: bool = False) -> Credential:
        password = "not the password" if wrong else ADMIN_PASSWORD if name == "admin" else PASSWORD
        return Credential(role=Role.USER, name=name, password=password)

    def log_in(self, name: str, *, wrong: bool = False) -> Client:
        made = Client(self.world, self.machine.worker)
        made.login(self.credential(name, wrong=wrong))
        return made

    def fail(self, name: str, times: int = MOST) -> str:
        """Wrong logins, each once the delays of the others are over; returns what the last one was told."""
        said = ""
        for _ in range(times):
            self.world.now += 2 * limits.LOCK_SECONDS
            with pytest.raises(PasswordIncorrect) as refused:
                self.log_in(name, wrong=True)
            said = str(refused.value)
        return said

    def is_locked(self, name: str) -> bool:
        users = self.machine.as_administrator().ask(admin.USER_LIST, Empty()).users
        return next(user.locked for user in users if user.name == name)

    def unlock(self, by: Client, role: Role = Role.USER, name: str = "", keyring: bytes = b"") -> None:
        by.ask(admin.USER_UNLOCK, admin.Unlock(role=role, name=name, keyring=keyring))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_user_stays_locked_until_an_admin_unlocks_it(scene: Scene) -> None:
    scene.fail("olga", MOST - 1)
    scene.log_in("olga")
    scene.fail("olga", MOST - 1)
    assert not scene.is_locked("olga")
    scene.fail("olga", 1)
    assert scene.is_locked("olga")
    scene.world.now += LONG
    with pytest.raises(PasswordIncorrect):
        scene.log_in("olga")
    scene.world.now += LONG
    scene.unlock(scene.machine.as_administrator(), name="olga")
    assert not scene.is_locked("olga")
    scene.log_in("olga")


def test_who_is_locked_hears_what_a_wrong_password_and_a_made_up_name_hear(scene: Scene) -> None:
    said = scene.fail("olga")
    with pytest.raises(PasswordIncorrect) as right:
        scene.log_in("olga")
    assert str(right.value) == said == scene.fail("nobody") == scene.fail("hugo", 1)
    assert [each.outcome for each in scene.world.audit if each.identity.startswith("olga")][-1] == "PasswordLocked"


def test_no_session_of_before_ends(scene: Scene) -> None:
    scene.rule(1)
    before = scene.log_in("hugo")
    with pytest.raises(PasswordIncorrect):
        scene.log_in("hugo", wrong=True)
    assert scene.is_locked("hugo")
    before.ask(admin.USER_LIST, Empty())


def test_a_reset_unlocks_and_so_does_another_policy(scene: Scene) -> None:
    scene.fail("olga")
    scene.rule(MOST + 1)
    assert not scene.is_locked("olga")
    scene.rule(MOST)
    assert scene.is_locked("olga")
    scene.rule(0)
    assert not scene.is_locked("olga")
    scene.rule(MOST)
    scene.machine.as_administrator().ask(admin.USER_RESET, admin.ResetUser(name="olga", password="another password"))
    assert not scene.is_locked("olga")


def test_the_po_and_the_roles_of_a_keyring_are_locked_and_unlocked_too(scene: Scene) -> None:
    for right in (
        Credential(role=Role.PO, password=PO_PASSWORD),
        Credential(role=Role.KRCO, keyring=scene.keyring, password=KRCO),
    ):
        unlocking = scene.machine.as_administrator()
        for _ in range(MOST):
            scene.world.now += 2 * limits.LOCK_SECONDS
            with pytest.raises(PasswordIncorrect):
                scene.machine.login(Credential(role=right.role, keyring=right.keyring, password="not the password"))
        with pytest.raises(PasswordIncorrect):
            scene.machine.login(right)
        scene.world.now -= 2 * limits.LOCK_SECONDS * MOST  # the session that unlocks is not over
        scene.unlock(unlocking, right.role, keyring=right.keyring)
        scene.machine.login(right)


def test_who_unlocks_holds_what_is_unlocked(scene: Scene) -> None:
    hugo = scene.log_in("hugo")
    for role, name, keyring in (
        (Role.USER, "alice", b""),
        (Role.USER, "olga", b""),
        (Role.PO, "", b""),
        (Role.KRCO, "", scene.keyring),
    ):
        with pytest.raises(PermissionDenied):
            scene.unlock(hugo, role, name, keyring)
    scene.unlock(hugo, name="hugo")
    with pytest.raises(NameUnknown):
        scene.unlock(scene.admin, name="nobody")


def test_an_admin_is_locked_while_another_one_is_not(scene: Scene) -> None:
    scene.fail("alice")
    assert scene.is_locked("alice")
    with pytest.raises(PasswordIncorrect):
        scene.log_in("alice")
    scene.fail("admin")
    scene.world.now += LONG
    scene.log_in("admin")  # the last way in


@settings(max_examples=sized(15), deadline=None)
@given(st.lists(st.sampled_from(["admin", "alice", "olga"]), max_size=12))
def test_whatever_fails_one_admin_at_least_can_log_in(failing: list[str]) -> None:
    scene = Scene()
    for name in failing:
        scene.fail(name, 1)
    scene.world.now += LONG
    may = []
    for name in ("admin", "alice"):
        try:
            scene.log_in(name)
        except LnhError:
            continue
        may.append(name)
    assert may, f"after {failing} no admin can log in"


def test_failures_of_a_client_that_succeeded_before_count_as_well(scene: Scene) -> None:
    def log_in(password: str) -> None:
        scene.machine.token, scene.machine.connection = b"", os.urandom(16)
        scene.machine.login(Credential(role=Role.USER, name="olga", password=password))

    log_in(PASSWORD)
    for _ in range(MOST):
        with pytest.raises(PasswordIncorrect):
            log_in("not the password")
    assert scene.is_locked("olga")
    with pytest.raises(PasswordIncorrect):
        log_in(PASSWORD)
