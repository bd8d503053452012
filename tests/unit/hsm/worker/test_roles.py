"""Every operation as every role, custom ones too, through a worker, against docs/permissions.md; custom roles; resets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from lnh_common import limits
from lnh_common.errors import (
    CredentialChanged,
    LimitReached,
    NameTaken,
    NameUnknown,
    NotPossible,
    PasswordIncorrect,
    PasswordInvalid,
    PasswordLocked,
    PasswordMustChange,
    PermissionDenied,
    VersionConflict,
)
from lnh_common.messages import admin, session, store
from lnh_common.messages.admin import Permission
from lnh_common.messages.base import OPERATIONS, Empty, Message
from lnh_common.messages.session import ChangePassword, Credential, Register, Role
from lnh_services.hsm.auth.permissions import BUILTIN_ROLES, RESERVED_ROLES
from lnh_services.hsm.effects import Ask, Peer, Steps
from lnh_services.hsm.records import RoleRecord
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.document import HEAD, LOOKS, RULES, WITH_PO, YES, render
from lnh_services.hsm.worker.handlers.session import check_token
from lnh_services.hsm.worker.handlers.table import SERVED
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.roles import role_id
from lowered import lower
from models.carried import sample
from models.worker import ADMIN_PASSWORD, KRCO, KRSO, PO_PASSWORD, Client, World, make_keyring

PAGE: Final = Path(__file__).parents[4] / "docs" / "permissions.md"
PASSWORD: Final = "a password of theirs"
PO: Final = Credential(role=Role.PO, password=PO_PASSWORD)
# Custom roles: one of each permission alone, and some of several.
CUSTOM: Final = {f"only-{each.value}": frozenset({each}) for each in Permission} | {
    "helpdesk": frozenset({Permission.VIEW, Permission.USERS}),
    "all": frozenset(Permission),
}
OPERATIONS_OF_A_SESSION: Final = sorted(name for name, served in SERVED.items() if served.rule is not None)


def user(name: str) -> Credential:
    return Credential(role=Role.USER, name=name, password=PASSWORD)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == render(), "python -m lnh_services.hsm.worker.document > docs/permissions.md"


# --- every operation as every role


def _reached(worker: WorkerCore, request: Request[Any]) -> Steps[Message]:
    yield from ()
    raise NotPossible("let in")


@dataclasses.dataclass(frozen=True)
class Asker:
    """One who asks: what he is on the page, and his session."""

    client: Client
    permissions: frozenset[Permission] = frozenset()
    po: bool = False
    column: str = ""  # of the page, where no permission decides
    elsewhere: bool = False  # his keyring is another one


@dataclasses.dataclass(frozen=True)
class Everybody:
    keyring: bytes
    askers: dict[str, Asker]


@pytest.fixture(scope="module")
def everybody() -> Everybody:
    """One session of each role, at a worker whose handlers only say that they were reached."""
    world = World()
    client = Client(world, world.worker()).register()
    watched = Client(world, world.worker())
    keyring, other = make_keyring(client), make_keyring(client, "other")
    administrator = client.as_administrator()
    for name, held in CUSTOM.items():
        administrator.ask(admin.USER_ROLE_CREATE, admin.CreateRole(name=name, permissions=tuple(held)))
    roles = BUILTIN_ROLES | CUSTOM
    for role in roles:
        administrator.ask(admin.USER_ADD, admin.AddUser(name=f"u-{role}", role=role, password=PASSWORD))
    register = Register(
        administrator=Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD), name="watched",
        curve_key=os.urandom(32), sign_key=watched.key.public_key().public_bytes_raw(), monitor="u-monitor",
    )  # fmt: skip
    watched.id = watched.ask(session.REGISTER, register).client

    asked = WorkerCore(
        {name: dataclasses.replace(served, handler=_reached) for name, served in SERVED.items()},
        check_token,
        lambda: world.now,
        lambda: world.now,
    )
    asked.take_secrets(world.secrets)
    world.attach(asked)

    def logged_in(by: Client, *given: Credential) -> Client:
        found = dataclasses.replace(by, token=b"", connection=os.urandom(16))
        found.login(*given)
        return dataclasses.replace(found, worker=asked)

    nobody = Client(world, client.worker)
    askers = {"po": Asker(logged_in(nobody, PO), po=True)}
    for role, held in roles.items():
        askers[role] = Asker(logged_in(nobody, user(f"u-{role}")), held)
        askers[f"{role}+po"] = Asker(logged_in(nobody, user(f"u-{role}"), PO), held, po=True)
    krso = Credential(role=Role.KRSO, keyring=keyring, password=KRSO)
    krco = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    askers |= {
        "krso": Asker(logged_in(client, krso), column="KRSO"),
        "krco": Asker(logged_in(client, krco), column="KRCO"),
        "krso elsewhere": Asker(logged_in(client, Credential(role=Role.KRSO, keyring=other, password=KRSO)), column="KRSO", elsewhere=True),
        "krco elsewhere": Asker(logged_in(client, Credential(role=Role.KRCO, keyring=other, password=KRCO)), column="KRCO", elsewhere=True),
        "client": Asker(logged_in(client), column="client"),
        "client that sees what monitors see": Asker(logged_in(watched), BUILTIN_ROLES["monitor"], column="client"),
    }  # fmt: skip
    return Everybody(keyring, askers)


def rows_of_the_page() -> dict[str, dict[str, str]]:
    part = PAGE.read_text().partition("## Operations\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): dict(zip(HEAD, row, strict=True)) for row in cells}


def says(row: dict[str, str], asker: Asker) -> bool:
    """Whether the page lets him: by his permissions, by the role of his keyring, or as a client."""
    of_session = row["permission"] == "" and row["monitor"] == YES
    if of_session:
        return True
    if row["permission"] in {each.value for each in asker.permissions} and (asker.po or row["admin"] != WITH_PO):
        return True
    if asker.column in ("KRSO", "KRCO") and asker.elsewhere:
        return row["client"] == YES  # he is a client all the same
    if asker.column in ("KRSO", "KRCO"):
        return row[asker.column] in (YES, LOOKS) or row["client"] == YES
    return asker.column == "client" and row["client"] == YES


def test_the_page_has_each_operation_once_and_its_columns_agree_with_each_other() -> None:
    rows = rows_of_the_page()
    assert sorted(rows) == sorted(RULES) == sorted([*OPERATIONS_OF_A_SESSION, session.REGISTER.name])
    for name, row in rows.items():
        for role, held in BUILTIN_ROLES.items():
            by_permission = row["permission"] in {each.value for each in held}
            assert (row[role] != "") is by_permission or (row[role] == YES and not row["permission"]), (name, role)


@pytest.mark.parametrize("name", OPERATIONS_OF_A_SESSION)
def test_every_operation_as_every_role_is_let_in_where_the_page_says_so(everybody: Everybody, name: str) -> None:
    operation, row = OPERATIONS[name], rows_of_the_page()[name]
    found: dict[str, bool] = {}
    for who, asker in everybody.askers.items():
        with pytest.raises((NotPossible, PermissionDenied)) as caught:
            asker.client.ask(operation, sample(operation.request), everybody.keyring)
        found[who] = isinstance(caught.value, NotPossible)
    assert found == {who: says(row, asker) for who, asker in everybody.askers.items()}


@pytest.mark.parametrize("role", [*BUILTIN_ROLES, *CUSTOM])
def test_a_client_is_registered_by_users_whose_role_may(everybody: Everybody, role: str) -> None:
    asker = everybody.askers[role]
    client = dataclasses.replace(asker.client, worker=asker.client.world.workers[0], token=b"")
    message = Register(
        administrator=user(f"u-{role}"), name=f"by {role}", curve_key=bytes(32),
        sign_key=client.key.public_key().public_bytes_raw(),
    )  # fmt: skip
    if says(rows_of_the_page()[session.REGISTER.name], asker):
        assert client.ask(session.REGISTER, message).client
    else:
        with pytest.raises(PermissionDenied):
            client.ask(session.REGISTER, message)


# --- custom roles


class Scene:
    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.machine = Client(self.world, self.world.worker()).register()
        self.admin = self.machine.as_administrator()

    def role(self, name: str, *permissions: Permission, by: Client | None = None) -> None:
        (by or self.admin).ask(admin.USER_ROLE_CREATE, admin.CreateRole(name=name, permissions=permissions))

    def user(self, name: str, role: str, by: Client | None = None) -> Client:
        (by or self.admin).ask(admin.USER_ADD, admin.AddUser(name=name, role=role, password=PASSWORD))
        return self.login(name)

    def commit(self, change: store.Change) -> None:
        at = int(self.world.now * 1000)
        commit = store.Commit(client=bytes(16), session=os.urandom(16), sequence=1, issued_at=at, changes=(change,))
        self.world.answer(Ask(Peer.STORE, store.COMMIT, commit))

    def login(self, name: str) -> Client:
        client = Client(self.world, self.world.worker())
        client.login(user(name))
        return client


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_custom_role_is_made_listed_given_and_deleted(scene: Scene) -> None:
    scene.role("clerk", Permission.GROUPS, Permission.VIEW)
    clerk = scene.user("carla", "clerk")
    assert clerk.ask(admin.GROUP_LIST, Empty()) is not None
    refused: list[Callable[[], object]] = [
        lambda: clerk.ask(admin.USER_LIST, Empty()),
        lambda: clerk.ask(admin.CLIENT_LIST, Empty()),
        lambda: scene.role("more", Permission.VIEW, by=clerk),
    ]
    for act in refused:
        with pytest.raises(PermissionDenied, match="custom role"):
            act()
    listed = {role.name: role for role in scene.admin.ask(admin.USER_ROLE_LIST, Empty()).roles}
    assert {*BUILTIN_ROLES, "clerk"} == set(listed)
    assert (listed["clerk"].permissions, listed["clerk"].custom) == (("groups", "view"), True)
    with pytest.raises(NotPossible, match="carla"):
        scene.admin.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk"))
    scene.admin.ask(admin.USER_DELETE, admin.UserRef(name="carla"))
    with pytest.raises(CredentialChanged):
        clerk.ask(admin.GROUP_LIST, Empty())
    scene.admin.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk"))
    with pytest.raises(NameUnknown, match="clerk"):
        scene.admin.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk"))
    with pytest.raises(NameUnknown, match="no appliance role"):
        scene.user("carl", "clerk")
    recorded = [(each.operation, each.target, each.outcome) for each in scene.world.audit]
    for outcome in ("ok", "NotPossible"):
        assert ("user.role-delete", "clerk", outcome) in recorded


@pytest.mark.parametrize("name", ["admin", "Admin", "po", "KRSO", "so", "user"])
def test_the_products_own_roles_are_neither_made_nor_deleted(scene: Scene, name: str) -> None:
    assert name.casefold() in RESERVED_ROLES
    with pytest.raises(NameTaken):
        scene.role(name, Permission.VIEW)
    with pytest.raises((NotPossible, NameUnknown)):
        scene.admin.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name=name))


def test_a_role_is_made_once_and_there_are_so_many(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, CUSTOM_ROLES=2)
    scene.role("one", Permission.VIEW)
    with pytest.raises(NameTaken):
        scene.role("one", Permission.GROUPS)
    scene.role("two", Permission.VIEW)
    with pytest.raises(LimitReached, match="2 custom roles"):
        scene.role("three", Permission.VIEW)


def test_who_makes_users_gives_nobody_what_he_lacks(scene: Scene) -> None:
    scene.role("helpdesk", Permission.VIEW, Permission.USERS)
    scene.role("clerk", Permission.GROUPS)
    scene.user("carla", "clerk")
    helper = scene.user("hugo", "helpdesk")
    held = scene.user("viewer", "monitor", by=helper)
    assert held.ask(admin.GROUP_LIST, Empty()) is not None
    scene.role("watcher", Permission.VIEW, by=helper)
    refused: list[Callable[[], object]] = [
        lambda: scene.user("more", "admin", by=helper),
        lambda: scene.user("more", "operator", by=helper),
        lambda: scene.user("more", "clerk", by=helper),
        lambda: scene.role("more", Permission.VIEW, Permission.CLUSTER, by=helper),
        lambda: helper.ask(admin.USER_DELETE, admin.UserRef(name="admin")),
        lambda: helper.ask(admin.USER_DELETE, admin.UserRef(name="carla")),
        lambda: helper.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk")),
    ]
    for act in refused:
        with pytest.raises(PermissionDenied, match="permissions that you do not hold"):
            act()
    names = {each.name for each in scene.admin.ask(admin.USER_LIST, Empty()).users}
    assert names == {"admin", "carla", "hugo", "viewer"}
    helper.ask(admin.USER_DELETE, admin.UserRef(name="viewer"))


class Between(World):
    """A world in which something happens just before the next commit that changes a table."""

    def __init__(self) -> None:
        super().__init__()
        self.before: tuple[str, Callable[[], object]] | None = None

    def answer(self, asked: Ask) -> Message:
        if self.before is not None and isinstance(asked.message, store.Commit):
            table, act = self.before
            changes = (each for each in asked.message.changes if isinstance(each, store.Put | store.Delete))
            if any(each.key.table == table for each in changes):
                self.before = None
                act()
        return super().answer(asked)


def test_no_user_is_left_with_a_role_that_is_deleted_meanwhile() -> None:
    world = Between()
    scene = Scene(world)
    scene.role("clerk", Permission.GROUPS)
    other = scene.machine.as_administrator()
    world.before = (
        "role",
        lambda: other.ask(admin.USER_ADD, admin.AddUser(name="carla", role="clerk", password=PASSWORD)),
    )
    with pytest.raises((VersionConflict, NotPossible)):
        scene.admin.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk"))
    other.ask(admin.USER_DELETE, admin.UserRef(name="carla"))
    world.before = "user", lambda: other.ask(admin.USER_ROLE_DELETE, admin.RoleRef(name="clerk"))
    with pytest.raises((VersionConflict, NameUnknown)):
        scene.user("carl", "clerk")
    assert {each.name for each in scene.admin.ask(admin.USER_LIST, Empty()).users} == {"admin"}


def test_a_role_whose_record_is_gone_or_of_a_later_version_allows_only_what_is_known(scene: Scene) -> None:
    scene.role("clerk", Permission.GROUPS, Permission.VIEW)
    clerk = scene.user("carla", "clerk")
    records = clerk.worker.records
    assert records is not None
    born = int(scene.world.now * 1000)
    later = RoleRecord(name="clerk", permissions=("view", "something-new"), born=born)
    scene.commit(records.put(later, role_id("clerk"), 1, unique="clerk"))
    assert clerk.ask(admin.GROUP_LIST, Empty()) is not None
    with pytest.raises(PermissionDenied):
        clerk.ask(admin.GROUP_CREATE, admin.NewGroup(label="east"))
    scene.commit(store.Delete(key=records.key_of(RoleRecord, role_id("clerk"))))
    with pytest.raises(CredentialChanged, match="'clerk' of appliance user 'carla' does not exist"):
        clerk.ask(admin.GROUP_LIST, Empty())
    scene.role("helpdesk", Permission.USERS)
    helper = scene.user("hugo", "helpdesk")
    with pytest.raises(PermissionDenied, match="do not hold"):  # a store that leaves the role out opens no way
        helper.ask(admin.USER_DELETE, admin.UserRef(name="carla"))
    scene.admin.ask(admin.USER_DELETE, admin.UserRef(name="carla"))


def test_custom_roles_wait_for_the_clusters_version(scene: Scene) -> None:
    scene.world.set_version("0.1")
    with pytest.raises(NotPossible, match=r"once the cluster's version is 0\.2; it is 0\.1"):
        scene.role("clerk", Permission.VIEW)
    scene.world.set_version("0.2")
    scene.role("clerk", Permission.VIEW)


# --- passwords of others


def changed(client: Client, name: str, old: str, new: str) -> None:
    credential = Credential(role=Role.USER, name=name, password=old)
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=credential, new=new))


def test_an_admin_resets_a_user_who_then_changes_the_password_first(scene: Scene) -> None:
    before = scene.user("mia", "monitor")
    scene.admin.ask(admin.USER_RESET, admin.ResetUser(name="mia", password="from the helpdesk"))
    with pytest.raises(CredentialChanged):
        before.ask(admin.GROUP_LIST, Empty())
    mia = Client(scene.world, scene.world.worker())
    with pytest.raises(PasswordIncorrect):
        mia.login(user("mia"))
    with pytest.raises(PasswordMustChange) as caught:
        mia.login(Credential(role=Role.USER, name="mia", password="from the helpdesk"))
    assert caught.value.detail["advice"] == "change the password first: lnh user password -u mia"
    changed(mia, "mia", "from the helpdesk", PASSWORD)
    assert scene.login("mia").ask(admin.GROUP_LIST, Empty()) is not None
    assert ("user.reset", "mia", "ok") in [(each.operation, each.target, each.outcome) for each in scene.world.audit]


def test_a_reset_forgives_the_failed_logins_of_before(scene: Scene) -> None:
    scene.user("mia", "monitor")
    mia = Client(scene.world, scene.world.worker())
    for number in range(limits.FAILURES_BEFORE_LOCK):
        with pytest.raises(PasswordIncorrect):
            mia.login(Credential(role=Role.USER, name="mia", password=f"wrong password {number}"))
    with pytest.raises(PasswordLocked):
        mia.login(user("mia"))
    scene.admin.ask(admin.USER_RESET, admin.ResetUser(name="mia", password="from the helpdesk"))
    changed(mia, "mia", "from the helpdesk", PASSWORD)
    mia.login(user("mia"))


def test_nobody_resets_the_own_password_nor_one_of_a_user_who_may_more(scene: Scene) -> None:
    scene.role("helpdesk", Permission.VIEW, Permission.USERS)
    helper, ordinary = scene.user("hugo", "helpdesk"), scene.user("mia", "monitor")
    scene.user("second", "admin")
    with pytest.raises(NotPossible, match="who asks"):
        helper.ask(admin.USER_RESET, admin.ResetUser(name="hugo", password="another password"))
    for name in ("admin", "second"):
        with pytest.raises(PermissionDenied, match="do not hold"):
            helper.ask(admin.USER_RESET, admin.ResetUser(name=name, password="another password"))
    with pytest.raises(PermissionDenied, match="permission 'users'"):
        ordinary.ask(admin.USER_RESET, admin.ResetUser(name="hugo", password="another password"))
    with pytest.raises(NameUnknown):
        scene.admin.ask(admin.USER_RESET, admin.ResetUser(name="nobody", password="another password"))
    with pytest.raises(PasswordInvalid):
        scene.admin.ask(admin.USER_RESET, admin.ResetUser(name="mia", password="short"))
    scene.login("second")
    helper.ask(admin.USER_RESET, admin.ResetUser(name="mia", password="another password"))


def test_a_user_who_is_deleted_meanwhile_is_not_reset() -> None:
    world = Between()
    scene = Scene(world)
    scene.user("mia", "monitor")
    other = scene.machine.as_administrator()
    world.before = "credential", lambda: other.ask(admin.USER_DELETE, admin.UserRef(name="mia"))
    with pytest.raises(VersionConflict):
        scene.admin.ask(admin.USER_RESET, admin.ResetUser(name="mia", password="another password"))
    with pytest.raises(PasswordIncorrect):
        scene.login("mia")
