"""Writes docs/permissions.md from the table of operations.

`python -m lnh_services.hsm.worker.document > docs/permissions.md`. A test holds that the page is what this renders, and
another one asks each operation as each role and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, get_origin

from lnh_common.messages import console, session
from lnh_common.messages.admin import Permission
from lnh_common.messages.base import Operation, Seal
from lnh_common.messages.session import Role
from lnh_services.hsm.auth.permissions import BUILTIN_ROLES, REGISTERS, Rule
from lnh_services.hsm.worker.core import Second
from lnh_services.hsm.worker.handlers.table import SERVED

YES: Final = "yes"
WITH_PO: Final = "with the PO"
LOOKS: Final = "looks only"
ALLOWS: Final = {
    Permission.VIEW: "look at status, members, groups, metrics, and the names of keyrings",
    Permission.USERS: "make, reset, unlock and delete users and roles, none with more permissions than its own",
    Permission.CLIENTS: "register and revoke clients, assign keyrings to them",
    Permission.MEMBERS: "name, promote, remove members; invite them together with the PO",
    Permission.KEYRINGS: "create and delete keyrings and set their first KRSO, together with the PO",
    Permission.CLUSTER: "change the cluster's policy, back up its SMK, leave, delete, restore, together with the PO",
    Permission.GROUPS: "make and delete affinity groups, move members between them",
    Permission.BACKUP: "make, list, verify, download backups, and schedule them",
    Permission.BACKUP_DELETE: "delete backups",
    Permission.AUDIT_EXPORT: "fetch the audit trail of a member",
    Permission.APPROVE: "approve or deny what another user asked for, as policy `dual_control` demands",
}
HEAD: Final = ("operation", "permission", *BUILTIN_ROLES, "KRSO", "KRCO", "client", "recorded", "second person")

RULES: Final[dict[str, Rule]] = {
    **{name: served.rule for name, served in SERVED.items() if served.rule is not None},
    session.REGISTER.name: REGISTERS,
}


def may(rule: Rule, role: str) -> str:
    """Say whether the built-in role of an appliance user may."""
    if rule.session:
        return YES
    if rule.permission is None or rule.permission not in BUILTIN_ROLES[role]:
        return ""
    return WITH_PO if rule.po else YES


def _of_keyring(rule: Rule, role: Role) -> str:
    if rule.session:
        return YES
    if role not in rule.keyring:
        return ""
    return LOOKS if rule.changes and role not in rule.changes else YES


def row(name: str, rule: Rule) -> tuple[str, ...]:
    """Return the cells of an operation, in the order of `HEAD`."""
    return (
        f"`{name}`",
        rule.permission.value if rule.permission is not None else "",
        *(may(rule, role) for role in BUILTIN_ROLES),
        _of_keyring(rule, Role.KRSO),
        _of_keyring(rule, Role.KRCO),
        YES if rule.session or rule.client else "",
        YES if rule.audited else "refusals",
        _second(name),
    )


def _second(name: str) -> str:
    second = SERVED[name].second
    if second is None:
        return ""
    return "by policy" if second.guards is Second().guards else "by policy, or its guard"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> list[str]:
    return [_line(head), _line("---" for _ in head), *map(_line, rows)]


def _permission_rows() -> Iterator[tuple[str, ...]]:
    for permission in Permission:
        names = [f"`{name}`" for name, rule in sorted(RULES.items()) if rule.permission is permission]
        held = (YES if permission in roles else "" for roles in BUILTIN_ROLES.values())
        yield (f"`{permission.value}`", ALLOWS[permission], *held, ", ".join(names))


def _console_rows() -> Iterator[tuple[str, ...]]:
    found = [each for each in vars(console).values() if isinstance(each, Operation)]
    for operation in sorted([*found, *console.IN_PARTITION.values()], key=lambda each: each.name):
        yield (f"`{operation.name}`", _console_needs(operation))


_NEEDS: Final = (
    (console.AsSo, "the SO's password"),
    (console.SendKey, "the password of that partition's CO, and the SO's"),
    (console.AsCo, "the password of that partition's CO"),
    (console.ChangeOfficerPassword, "the old password of that partition's PO or CO"),
    (console.Activate, "the activation secret, or enough shares of it"),
)


def _console_needs(operation: Operation[Any, Any]) -> str:
    request = get_origin(operation.request) or operation.request
    return next((what for kind, what in _NEEDS if issubclass(request, kind)), "")


def _without_a_session() -> str:
    names = [f"`{served.operation.name}`" for served in SERVED.values() if served.operation.seal is Seal.CREDENTIAL]
    return ", ".join(names)


_TOP: Final = """\
# Who may do what, operation by operation

Written from the code by `python -m lnh_services.hsm.worker.document`; change the table, not this page. What commands
need, in words, is in [operations.md](operations.md#who-may-do-what).

## Permissions

An appliance role is a named set of these. A custom role (`lnh user role create`) holds any of them. Nobody makes a role
or a user, deletes or resets one, with a permission that the own role lacks.
"""
_OPERATIONS: Final = """\
## Operations

"With the PO": the session holds the PO's credential beside the user's. A custom role that holds the permission may as
the built-in ones may. KRSO and KRCO act on their own keyring alone. A client is a registered machine without a login;
one that is registered with `--monitor` may what `monitor` may. What is recorded is in the audit trail before it is
done. Second person: policy `dual_control` may name the operation. While it names any, those with a guard wait where
they would lead around it, named or not: they change `dual_control`, restore an archive, make a role whose users may
approve, or give somebody the password of such a user.
"""
_CONSOLE: Final = """\
## At a member's local console

Whoever may enter the member's directory may ask; beside that it needs what the table says.
"""


def render() -> str:
    """Render the page."""
    lines = [
        _TOP,
        *_table(("permission", "its users may", *BUILTIN_ROLES, "operations"), _permission_rows()),
        "",
        _OPERATIONS,
        *_table(HEAD, (row(name, rule) for name, rule in sorted(RULES.items()))),
        "",
        "Without a session, and checking the credential that they carry themselves:",
        f"{_without_a_session()}. `hello` checks none.",
        "",
        _CONSOLE,
        *_table(("operation", "needs"), _console_rows()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(render())
