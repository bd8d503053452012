"""Decides who may do what: one row an operation, enforced where the operation is served and nowhere else.

A session carries grants: an appliance user with the permissions of its role, the PO, the KRSO or KRCO of one keyring,
or nothing but a registered client. Appliance roles are named sets of permissions, so a custom role is data.
docs/permissions.md is written from these rows (`worker/document.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from lnh_common.errors import PermissionDenied
from lnh_common.messages.admin import Permission
from lnh_common.messages.session import Role

ADMIN: Final = "admin"

BUILTIN_ROLES: Final[dict[str, frozenset[Permission]]] = {
    ADMIN: frozenset(Permission),
    "operator": frozenset({Permission.VIEW, Permission.GROUPS, Permission.BACKUP}),
    "monitor": frozenset({Permission.VIEW}),
}
# What no custom role is called: the built-in ones, and the roles that are no appliance user's.
RESERVED_ROLES: Final = frozenset({*BUILTIN_ROLES, *(role.value for role in Role), "so", "co"})


def named(permissions: Iterable[str]) -> frozenset[Permission]:
    """Return the permissions of these names; one that only a later version knows allows nothing here."""
    wanted = frozenset(permissions)
    return frozenset(each for each in Permission if each.value in wanted)


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


# A registration carries a credential in place of a session; the user that it names is asked for this.
REGISTERS: Final = Rule(Permission.CLIENTS, audited=True)


class User(NamedTuple):
    """An appliance user of a session, with what this user's own role allows."""

    name: str
    permissions: frozenset[Permission]


@dataclass(frozen=True)
class Holder:
    """The grants of a session.

    Args:
        permissions: of its appliance user.
        users: who that is; two where both logged in together.
        po: whether the PO logged in too.
        role, keyring: of its keyring role.
        client: whether it is a registered client.
    """

    permissions: frozenset[Permission] = frozenset()
    po: bool = False
    role: Role | None = None
    keyring: bytes = b""
    client: bool = False
    users: tuple[User, ...] = ()

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


def check_gives(operation: str, holder: Holder, permissions: frozenset[Permission]) -> None:
    """Raise PermissionDenied where this would give, or take from another, permissions that its holder lacks.

    Without it whoever may make users could make an admin, and so become one.
    """
    lacking = sorted(each.value for each in permissions - holder.permissions)
    if lacking:
        raise PermissionDenied(
            f"{operation} is about a role with permissions that you do not hold: {', '.join(lacking)}",
            {"advice": "have somebody do it who holds them: an admin holds all"},
        )


def check_change(operation: str, rule: Rule, holder: Holder) -> None:
    """Raise PermissionDenied for a keyring's role that may look at this, and not change it."""
    if holder.role not in rule.changes:
        wanted = " or ".join(role.name for role in sorted(rule.changes))
        raise PermissionDenied(f"to change something, {operation} needs the {wanted} of that keyring")


def _wanted(rule: Rule) -> list[str]:
    wanted = [f"the {role.name} of that keyring" for role in sorted(rule.keyring)]
    if rule.permission is not None:
        roles = [name for name, held in BUILTIN_ROLES.items() if rule.permission in held]
        roles.append("or a custom role")
        wanted.append(f"an appliance user with permission {rule.permission.value!r} ({', '.join(roles)})")
    if rule.client:
        wanted.append("a registered client")
    return wanted
