"""Serves the operations on appliance users and their roles.

Who may make users gives nobody what he lacks himself (`permissions.check_gives`), and at least one admin stays.
"""

from __future__ import annotations

from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import KeyringUnknown, LimitReached, NameTaken, NameUnknown, NotPossible
from lnh_common.messages import store
from lnh_common.messages.admin import (
    AddUser,
    CreateRole,
    Permission,
    ResetUser,
    RoleRef,
    Roles,
    RoleView,
    Unlock,
    UserRef,
    Users,
    UserView,
)
from lnh_common.messages.base import Empty, Skipped
from lnh_common.messages.session import Role
from lnh_services.hsm.auth import credentials, permissions
from lnh_services.hsm.auth.permissions import ADMIN, BUILTIN_ROLES, RESERVED_ROLES
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import CredentialRecord, KeyringRecord, PolicyRecord, RoleRecord, UserRecord, record_id
from lnh_services.hsm.worker import second_person
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.guards import unchanged
from lnh_services.hsm.worker.lasting_locks import stays_locked
from lnh_services.hsm.worker.passwords import derive, forgive, new_credential
from lnh_services.hsm.worker.policies import policy_id
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.roles import permissions_of, role_id

_USERS_NAMED: Final = 8


def user_id(name: str) -> bytes:
    """Return the id of the record that keeps an appliance user."""
    return record_id("user", name)


# --- users


def add_user(worker: WorkerCore, request: Request[AddUser]) -> Steps[Empty]:
    """Add an appliance user, who can log in to any member."""
    message = request.message
    if (yield from worker.acted_before(request)):
        return Empty()
    guards = yield from _role_exists(worker, message.role)
    yield from _check_gives(worker, request, message.role)
    there, _ = yield from worker.versioned(UserRecord, user_id(message.name), cached=False)
    if there is not None:
        raise NameTaken(f"there is a user {message.name!r}")
    credentials.check_password(message.password)
    kept = yield from derive(message.password)
    born = int(worker.utc() * 1000)
    record = new_credential(worker, kept, Role.USER, name=message.name, born=born)
    records = yield from worker.started()
    user = UserRecord(name=message.name, role=message.role, born=born)
    yield from worker.commit(
        request,
        [
            *guards,
            records.put(user, user_id(message.name), 0, unique=message.name),
            records.put(record, credentials.credential_id(Role.USER, message.name), 0),
        ],
    )
    return Empty()


def _role_exists(worker: WorkerCore, role: str) -> Steps[list[store.Change]]:
    """Make the guard that a role is still there; a built-in one needs none. Raises NameUnknown."""
    if role in BUILTIN_ROLES:
        return []
    record, version = yield from worker.versioned(RoleRecord, role_id(role), cached=False)
    if record is None:
        raise NameUnknown(
            f"no appliance role {role!r}", {"advice": "lnh user role list shows them; lnh user role create makes one"}
        )
    records = yield from worker.started()
    return [store.Require(key=records.key_of(RoleRecord, role_id(role)), version=version)]


def _check_gives(worker: WorkerCore, request: Request[Any], role: str) -> Steps[None]:
    """Raise PermissionDenied unless who asks holds all that a role does; of one that does not exist, everything."""
    held = yield from permissions_of(worker, role)
    permissions.check_gives(request.operation.name, request.who.holder, frozenset(Permission) if held is None else held)


def list_users(worker: WorkerCore, request: Request[Empty]) -> Steps[Users]:
    """List every appliance user, by name."""
    skipped: list[Skipped] = []
    found = yield from worker.scan_all(UserRecord, skipped)
    views = []
    for user in sorted(found, key=lambda user: user.name):
        locked = yield from stays_locked(worker, Role.USER, user.name)
        views.append(UserView(name=user.name, role=user.role, locked=locked))
    return Users(users=tuple(views), skipped=tuple(skipped))


def delete_user(worker: WorkerCore, request: Request[UserRef]) -> Steps[Empty]:
    """Delete a user; its sessions end. The last admin stays."""
    name = request.message.name
    if (yield from worker.acted_before(request)):
        return Empty()
    record, version = yield from worker.versioned(UserRecord, user_id(name), cached=False)
    if record is None:
        raise NameUnknown(f"no appliance user {name!r}")
    yield from _check_gives(worker, request, record.role)
    records = yield from worker.started()
    changes: list[store.Change] = []
    if record.role == ADMIN:
        changes.append((yield from _another_admin(worker, name)))
    changes += yield from _two_persons(worker, record, changes)
    where = credentials.credential_id(Role.USER, name)
    changes.append(store.Delete(key=records.key_of(UserRecord, user_id(name)), expected=version))
    stored, stored_version = yield from worker.versioned(CredentialRecord, where, cached=False)
    if stored is not None:
        changes.append(store.Delete(key=records.key_of(CredentialRecord, where), expected=stored_version))
    yield from worker.commit(request, changes)
    return Empty()


def _another_admin(worker: WorkerCore, name: str) -> Steps[store.Change]:
    """Make the guard that an admin beside this one stays: two that delete each other do not both succeed.

    Raises NotPossible for the last one.
    """
    others = [user for user in (yield from worker.scan_all(UserRecord)) if user.role == ADMIN and user.name != name]
    if not others:
        raise NotPossible(
            f"{name!r} is the last admin", {"advice": "add another one first: lnh user add NAME --role admin"}
        )
    where = user_id(others[0].name)
    _, version = yield from worker.versioned(UserRecord, where, cached=False)
    records = yield from worker.started()
    return store.Require(key=records.key_of(UserRecord, where), version=version)


def _two_persons(worker: WorkerCore, user: UserRecord, made: list[store.Change]) -> Steps[list[store.Change]]:
    """Make the guards that two users who may approve stay, while policy `dual_control` names anything.

    Args:
        made: the guards there are, none of which is made twice.
    """
    held = yield from permissions_of(worker, user.role)
    if held is not None and Permission.APPROVE not in held:
        return []
    policy, version = yield from worker.versioned(PolicyRecord, policy_id(), cached=False)
    records = yield from worker.started()
    guards: list[store.Change] = [store.Require(key=records.key_of(PolicyRecord, policy_id()), version=version)]
    if policy is not None and policy.fields.get("dual_control"):
        guards += yield from second_person.approvers(worker, without=user.name)
    return [each for each in guards if each not in made]


def reset_user(worker: WorkerCore, request: Request[ResetUser]) -> Steps[Empty]:
    """Give another user a new password to be changed at its first use; its sessions end, its failures are forgotten."""
    name, password = request.message.name, request.message.password
    if (yield from worker.acted_before(request)):
        yield from forgive(worker, Role.USER, name)
        return Empty()
    if any(grant.role is Role.USER and grant.name == name for grant in request.who.token.grants):
        raise NotPossible(
            f"{name!r} is who asks, and the own password is changed with the old one", {"advice": "lnh user password"}
        )
    credentials.check_password(password)
    kept = yield from derive(password)
    # After Argon2id, so that the user who is reset is the one who was looked at.
    record, version = yield from worker.versioned(UserRecord, user_id(name), cached=False)
    if record is None:
        raise NameUnknown(f"no appliance user {name!r}")
    yield from _check_gives(worker, request, record.role)
    where = credentials.credential_id(Role.USER, name)
    _, stored_version = yield from worker.versioned(CredentialRecord, where, cached=False)
    changed = new_credential(worker, kept, Role.USER, name=name, must_change=True, born=record.born)
    records = yield from worker.started()
    same = store.Require(key=records.key_of(UserRecord, user_id(name)), version=version)
    yield from worker.commit(request, [same, records.put(changed, where, stored_version)])
    yield from forgive(worker, Role.USER, name)
    return Empty()


def unlock(worker: WorkerCore, request: Request[Unlock]) -> Steps[Empty]:
    """Forget the failed logins of a holder, whose password and sessions stay as they are."""
    role, name, keyring = request.message.role, request.message.name, request.message.keyring
    if role is Role.USER:
        user, _ = yield from worker.versioned(UserRecord, user_id(name), cached=False)
        if user is None:
            raise NameUnknown(f"no appliance user {name!r}", {"advice": "lnh user list shows them"})
        yield from _check_gives(worker, request, user.role)
    elif role.of_keyring:
        permissions.check_gives(request.operation.name, request.who.holder, frozenset({Permission.KEYRINGS}))
        if (yield from worker.record(KeyringRecord, keyring)) is None:
            raise KeyringUnknown(f"no keyring {keyring.hex()}")
    else:
        permissions.check_gives(request.operation.name, request.who.holder, frozenset({Permission.CLUSTER}))
    yield from forgive(worker, role, name if role is Role.USER else "", keyring if role.of_keyring else b"")
    return Empty()


# --- roles


def create_role(worker: WorkerCore, request: Request[CreateRole]) -> Steps[Empty]:
    """Make a custom role of permissions that its maker holds himself."""
    message = request.message
    if message.name.casefold() in RESERVED_ROLES:
        raise NameTaken(f"{message.name!r} is a role of the product's own")
    granted = frozenset(message.permissions)
    permissions.check_gives(request.operation.name, request.who.holder, granted)
    if (yield from worker.acted_before(request)):
        return Empty()
    there, _ = yield from worker.versioned(RoleRecord, role_id(message.name), cached=False)
    if there is not None:
        raise NameTaken(f"there is a role {message.name!r}")
    role = RoleRecord(
        name=message.name,
        permissions=tuple(sorted(each.value for each in granted)),
        born=int(worker.utc() * 1000),
    )
    records = yield from worker.started()
    put = records.put(role, role_id(message.name), 0, unique=message.name, limit=limits.CUSTOM_ROLES)
    try:
        yield from worker.commit(request, [put])
    except LimitReached as error:
        raise LimitReached(
            f"{limits.CUSTOM_ROLES} custom roles, which is the limit of a cluster",
            error.detail | {"advice": "delete one that no user has: lnh user role list"},
        ) from None
    return Empty()


def list_roles(worker: WorkerCore, request: Request[Empty]) -> Steps[Roles]:
    """List the built-in roles, then the custom ones by name."""
    skipped: list[Skipped] = []
    found = yield from worker.scan_all(RoleRecord, skipped)
    views = [
        RoleView(name=name, permissions=tuple(sorted(each.value for each in held)), custom=False)
        for name, held in BUILTIN_ROLES.items()
    ]
    views += [
        RoleView(name=role.name, permissions=role.permissions, custom=True)
        for role in sorted(found, key=lambda role: role.name)
    ]
    return Roles(roles=tuple(views), skipped=tuple(skipped))


def delete_role(worker: WorkerCore, request: Request[RoleRef]) -> Steps[Empty]:
    """Delete a custom role that no user has."""
    name = request.message.name
    if name in BUILTIN_ROLES:
        raise NotPossible(
            f"{name!r} is a role of the product's own", {"advice": "custom roles alone are deleted: lnh user role list"}
        )
    if (yield from worker.acted_before(request)):
        return Empty()
    record, version = yield from worker.versioned(RoleRecord, role_id(name), cached=False)
    if record is None:
        raise NameUnknown(f"no appliance role {name!r}")
    permissions.check_gives(request.operation.name, request.who.holder, permissions.named(record.permissions))
    users = yield from worker.scan_items(UserRecord)
    having = sorted(user.name for _, user in users if user.role == name)
    if having:
        raise NotPossible(
            f"{len(having)} users have the role {name!r}: {', '.join(having[:_USERS_NAMED])}",
            {"advice": f"delete them first: lnh user delete {having[0]}"},
        )
    records = yield from worker.started()
    gone = store.Delete(key=records.key_of(RoleRecord, role_id(name)), expected=version)
    yield from worker.commit(request, [unchanged(UserRecord, (item for item, _ in users)), gone])
    return Empty()
