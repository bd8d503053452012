"""Decides who may do what: one row an operation, enforced where the operation is served and nowhere else.

A session carries grants: an appliance user with the permissions of its role, the PO, the KRSO or KRCO of one keyring,
or nothing but a registered client. Appliance roles are named sets of permissions, so a custom role is data.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from lnh_common.errors import PermissionDenied
from lnh_common.messages import admin, backup, objects, overview, session
from lnh_common.messages.session import Role


class Permission(str, enum.Enum):
    """A permission that an appliance role may hold."""

    VIEW = "view"  # status, members, groups, keyring names, metrics
    USERS = "users"
    CLIENTS = "clients"  # and assignment
    MEMBERS = "members"  # invite, promote, remove, set
    KEYRINGS = "keyrings"  # create and delete, together with the PO
    CLUSTER = "cluster"  # policy, join, leave, SMK, restore, together with the PO
    GROUPS = "groups"
    BACKUP = "backup"  # now, list, verify, download, schedule
    BACKUP_DELETE = "backup-delete"
    AUDIT_EXPORT = "audit-export"


BUILTIN_ROLES: Final[dict[str, frozenset[Permission]]] = {
    "admin": frozenset(Permission),
    "operator": frozenset({Permission.VIEW, Permission.GROUPS, Permission.BACKUP}),
    "monitor": frozenset({Permission.VIEW}),
}


@dataclass(frozen=True)
class Rule:
    """The demands of an operation on a session.

    Args:
        permission: an appliance user must hold it.
        po: and the PO's credential beside it.
        keyring: or: the session is one of these roles of the keyring it is about.
        client: or: a registered client without any login.
        session: or: any session at all.
        changes: of the keyring's roles, those that may change what the others may look at (`check_change`).
        audited: success is recorded too; refusals always are.
    """

    permission: Permission | None = None
    po: bool = False
    keyring: frozenset[Role] = frozenset()
    client: bool = False
    session: bool = False
    changes: frozenset[Role] = frozenset()
    audited: bool = False


_HOLDERS: Final = frozenset({Role.KRSO, Role.KRCO})
_KRSO: Final = frozenset({Role.KRSO})
_CRYPTOGRAPHY: Final = Rule(keyring=_HOLDERS)
_OBJECTS: Final = Rule(keyring=_HOLDERS, audited=True)

RULES: Final[dict[str, Rule]] = {
    session.RENEW.name: Rule(session=True),
    session.WAYS.name: Rule(client=True),  # addresses and keys of the members' ports: what failing over needs
    session.LOGOUT.name: Rule(session=True, audited=True),
    admin.KEYRING_LIST.name: Rule(Permission.VIEW, client=True, keyring=_HOLDERS),
    admin.KEYRING_SHOW.name: Rule(Permission.VIEW, keyring=_HOLDERS),
    admin.KEYRING_CREATE.name: Rule(Permission.KEYRINGS, po=True, audited=True),
    admin.KEYRING_DELETE.name: Rule(Permission.KEYRINGS, po=True, audited=True),
    admin.KEYRING_POLICY.name: Rule(keyring=_HOLDERS, changes=_KRSO, audited=True),
    admin.ROLE_INIT.name: Rule(Permission.KEYRINGS, po=True, audited=True),
    admin.ROLE_SET.name: Rule(keyring=_KRSO, audited=True),
    admin.CLIENT_LIST.name: Rule(Permission.CLIENTS),
    admin.CLIENT_REVOKE.name: Rule(Permission.CLIENTS, audited=True),
    admin.CLIENT_ASSIGN.name: Rule(Permission.CLIENTS, audited=True),
    admin.CLIENT_UNASSIGN.name: Rule(Permission.CLIENTS, audited=True),
    admin.USER_ADD.name: Rule(Permission.USERS, audited=True),
    admin.USER_LIST.name: Rule(Permission.USERS),
    admin.USER_DELETE.name: Rule(Permission.USERS, audited=True),
    admin.CLUSTER_SHOW.name: Rule(Permission.VIEW),
    admin.CLUSTER_POLICY.name: Rule(Permission.CLUSTER, po=True, audited=True),
    admin.CLUSTER_LEAVE.name: Rule(Permission.CLUSTER, po=True, audited=True),
    admin.CLUSTER_DELETE.name: Rule(Permission.CLUSTER, po=True, audited=True),
    # The invitation is the cluster's approval of the join, so it needs what a join needs.
    admin.MEMBER_INVITE.name: Rule(Permission.MEMBERS, po=True, audited=True),
    admin.MEMBER_SET.name: Rule(Permission.MEMBERS, audited=True),
    admin.MEMBER_PROMOTE.name: Rule(Permission.MEMBERS, audited=True),
    admin.MEMBER_REMOVE.name: Rule(Permission.MEMBERS, audited=True),
    admin.MEMBER_DELETE.name: Rule(Permission.MEMBERS, audited=True),
    admin.MEMBER_DIVERGENT.name: Rule(Permission.MEMBERS, audited=True),
    admin.MEMBER_MOVE.name: Rule(Permission.GROUPS, audited=True),
    admin.GROUP_CREATE.name: Rule(Permission.GROUPS, audited=True),
    admin.GROUP_LIST.name: Rule(Permission.VIEW),
    admin.GROUP_DELETE.name: Rule(Permission.GROUPS, audited=True),
    overview.OVERVIEW.name: Rule(Permission.VIEW),
    admin.STATUS.name: Rule(Permission.VIEW),
    backup.NOW.name: Rule(Permission.BACKUP, audited=True),
    backup.LIST.name: Rule(Permission.BACKUP),
    backup.SHOW.name: Rule(Permission.BACKUP),
    backup.VERIFY.name: Rule(Permission.BACKUP, audited=True),
    backup.JOB.name: Rule(Permission.BACKUP),
    backup.READ.name: Rule(Permission.BACKUP),
    backup.SCHEDULE.name: Rule(Permission.BACKUP, audited=True),
    backup.RESTORE.name: Rule(Permission.CLUSTER, po=True, audited=True),
    backup.WRITE.name: Rule(Permission.CLUSTER, po=True),
    backup.DELETE.name: Rule(Permission.BACKUP_DELETE, audited=True),
    objects.GENERATE.name: _OBJECTS,
    objects.GENERATE_PAIR.name: _OBJECTS,
    objects.GENERATE_MANY.name: _OBJECTS,
    objects.GENERATE_PAIRS.name: _OBJECTS,
    objects.GENERATE_IN_SESSION.name: _OBJECTS,
    objects.GENERATE_PAIR_IN_SESSION.name: _OBJECTS,
    objects.SET.name: _OBJECTS,
    objects.DESTROY.name: _OBJECTS,
    objects.FIND.name: _CRYPTOGRAPHY,
    objects.SHOW.name: _CRYPTOGRAPHY,
    objects.SIGN.name: _CRYPTOGRAPHY,
    objects.SIGN_MANY.name: _CRYPTOGRAPHY,
    objects.VERIFY.name: _CRYPTOGRAPHY,
    objects.ENCRYPT.name: _CRYPTOGRAPHY,
    objects.DECRYPT.name: _CRYPTOGRAPHY,
    objects.USES.name: _CRYPTOGRAPHY,  # and each use as its own row says
    objects.RANDOM.name: _CRYPTOGRAPHY,
}


@dataclass(frozen=True)
class Holder:
    """The grants of a session.

    Args:
        permissions: of its appliance user.
        po: whether the PO logged in too.
        role, keyring: of its keyring role.
        client: whether it is a registered client.
    """

    permissions: frozenset[Permission] = frozenset()
    po: bool = False
    role: Role | None = None
    keyring: bytes = b""
    client: bool = False

    @property
    def logged_in(self) -> bool:
        """Tell whether it has a credential, beside being a client."""
        return self.role is not None or self.po or bool(self.permissions)


def check(operation: str, route: bytes, holder: Holder) -> None:
    """Raise PermissionDenied, naming what is missing, unless the holder may.

    A keyring role acts on its own keyring, and says so in the route: policies and caches go by it.
    """
    rule = RULES[operation]
    if rule.session:
        return
    if holder.role in rule.keyring and route == holder.keyring:
        return
    if rule.client and holder.client:
        return
    if rule.permission is not None and rule.permission in holder.permissions:
        if not rule.po or holder.po:
            return
        raise PermissionDenied(f"{operation} needs the PO's credential beside that of the user")
    raise PermissionDenied(f"{operation} needs {' or '.join(_wanted(rule))}")


def check_change(operation: str, holder: Holder) -> None:
    """Raise PermissionDenied for a keyring's role that may look at this, and not change it."""
    changes = RULES[operation].changes
    if holder.role not in changes:
        wanted = " or ".join(role.name for role in sorted(changes))
        raise PermissionDenied(f"to change something, {operation} needs the {wanted} of that keyring")


def _wanted(rule: Rule) -> list[str]:
    wanted = [f"the {role.name} of that keyring" for role in sorted(rule.keyring)]
    if rule.permission is not None:
        roles = [name for name, held in BUILTIN_ROLES.items() if rule.permission in held]
        wanted.append(f"an appliance user with permission {rule.permission.value!r} ({', '.join(roles)})")
    if rule.client:
        wanted.append("a registered client")
    return wanted
