"""Decides who may do what: one row an operation, enforced where the operation is served and nowhere else.

A session carries grants: an appliance user with the permissions of its role, the PO, the KRSO or KRCO of one keyring,
or nothing but a registered client. Appliance roles are named sets of permissions, so a custom role is data.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from lnh_common.errors import PermissionDenied
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


def check(operation: str, rule: Rule, route: bytes, holder: Holder) -> None:
    """Raise PermissionDenied, naming what is missing, unless the holder may.

    A keyring role acts on its own keyring, and says so in the route: policies and caches go by it.
    """
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


def check_change(operation: str, rule: Rule, holder: Holder) -> None:
    """Raise PermissionDenied for a keyring's role that may look at this, and not change it."""
    if holder.role not in rule.changes:
        wanted = " or ".join(role.name for role in sorted(rule.changes))
        raise PermissionDenied(f"to change something, {operation} needs the {wanted} of that keyring")


def _wanted(rule: Rule) -> list[str]:
    wanted = [f"the {role.name} of that keyring" for role in sorted(rule.keyring)]
    if rule.permission is not None:
        roles = [name for name, held in BUILTIN_ROLES.items() if rule.permission in held]
        wanted.append(f"an appliance user with permission {rule.permission.value!r} ({', '.join(roles)})")
    if rule.client:
        wanted.append("a registered client")
    return wanted
