"""Who may do what: the table of docs/operations.md, against the rows that are enforced."""

from __future__ import annotations

from typing import Any, Final

import pytest

from lnh_common import errors
from lnh_common.messages import admin, audit, backup, objects, overview, session, smk
from lnh_common.messages.base import Operation
from lnh_common.messages.session import Role
from lnh_services.hsm.auth import permissions
from lnh_services.hsm.auth.permissions import BUILTIN_ROLES, Holder, Rule
from lnh_services.hsm.worker.handlers.table import SERVED

KEYRING: Final = b"k" * 16
RULES: Final[dict[str, Rule]] = {name: served.rule for name, served in SERVED.items() if served.rule is not None}

HOLDERS: Final = {
    "admin": Holder(permissions=BUILTIN_ROLES["admin"]),
    "admin+po": Holder(permissions=BUILTIN_ROLES["admin"], po=True),
    "operator": Holder(permissions=BUILTIN_ROLES["operator"], client=True),
    "operator+po": Holder(permissions=BUILTIN_ROLES["operator"], po=True),
    "monitor": Holder(permissions=BUILTIN_ROLES["monitor"]),
    "po": Holder(po=True),
    "krso": Holder(role=Role.KRSO, keyring=KEYRING, client=True),
    "krco": Holder(role=Role.KRCO, keyring=KEYRING, client=True),
    "krco elsewhere": Holder(role=Role.KRCO, keyring=b"e" * 16, client=True),
    "client": Holder(client=True),
    "client that sees what monitors see": Holder(permissions=BUILTIN_ROLES["monitor"], client=True),
}
ADMIN: Final = {"admin", "admin+po"}
WITH_PO: Final = {"admin+po"}
OPERATORS: Final = ADMIN | {"operator", "operator+po"}
MONITORS: Final = OPERATORS | {"monitor", "client that sees what monitors see"}
CLIENTS: Final = {"operator", "krso", "krco", "krco elsewhere", "client", "client that sees what monitors see"}
ROLES: Final = {"krso", "krco"}

# A row of that table, what it is made of, and who may.
ROWS: Final[list[tuple[str, set[str], tuple[Operation[Any, Any], ...]]]] = [
    ("status, members, groups, metrics", MONITORS,
     (admin.CLUSTER_SHOW, admin.CLUSTER_VERSION, admin.GROUP_LIST, admin.STATUS, overview.OVERVIEW, smk.SMK_SHOW)),
    ("names of keyrings, and of a client those it may see", MONITORS | CLIENTS, (admin.KEYRING_LIST,)),
    ("a keyring", MONITORS | ROLES, (admin.KEYRING_SHOW,)),
    ("who may not log in to a keyring", MONITORS, (admin.ROLE_LOCKS,)),
    ("users and roles, clients, assignment, members", ADMIN,
     (admin.USER_ADD, admin.USER_LIST, admin.USER_DELETE, admin.USER_RESET, admin.USER_UNLOCK, admin.USER_ROLE_CREATE, admin.USER_ROLE_LIST,
      admin.USER_ROLE_DELETE, admin.CLIENT_LIST, admin.CLIENT_REVOKE, admin.CLIENT_ASSIGN,
      admin.CLIENT_UNASSIGN, admin.MEMBER_SET, admin.MEMBER_PROMOTE, admin.MEMBER_REMOVE, admin.MEMBER_DELETE,
      admin.MEMBER_DIVERGENT)),
    ("what waits for a second person", ADMIN, (admin.APPROVAL_LIST, admin.APPROVAL_APPROVE, admin.APPROVAL_DENY)),
    ("groups, backup", OPERATORS,
     (admin.GROUP_CREATE, admin.GROUP_DELETE, admin.MEMBER_MOVE, backup.NOW, backup.LIST, backup.SHOW, backup.VERIFY,
      backup.JOB, backup.READ, backup.SCHEDULE)),
    ("backup delete, audit export", ADMIN, (backup.DELETE, audit.AUDIT_EXPORT)),
    ("join, leave, SMK backup, rollover and retirement, cluster policy, restore", WITH_PO,
     (admin.MEMBER_INVITE, admin.CLUSTER_UPGRADE, admin.CLUSTER_LEAVE, admin.CLUSTER_DELETE, admin.CLUSTER_POLICY, backup.RESTORE,
      backup.WRITE, smk.SMK_BACKUP, smk.SMK_ROLLOVER, smk.SMK_RETIRE)),
    ("keyring create and delete, first KRSO credential", WITH_PO,
     (admin.KEYRING_CREATE, admin.KEYRING_DELETE, admin.ROLE_INIT)),
    ("KRCO set and reset, rekey", {"krso"}, (admin.ROLE_SET, admin.KEYRING_REKEY, admin.KEYRING_RESEAL)),
    ("to look at a keyring's policy, and how far a rekey is", ROLES, (admin.KEYRING_POLICY, admin.KEYRING_REKEY_STATE)),
    ("objects and cryptography", ROLES,
     (objects.GENERATE, objects.GENERATE_PAIR, objects.GENERATE_MANY, objects.GENERATE_PAIRS,
      objects.GENERATE_IN_SESSION, objects.GENERATE_PAIR_IN_SESSION, objects.CREATE, objects.CREATE_IN_SESSION,
      objects.COPY, objects.VALUE, objects.WRAP, objects.WRAP_MANY, objects.UNWRAP, objects.UNWRAP_IN_SESSION,
      objects.DERIVE,
      objects.DERIVE_IN_SESSION, objects.ENCAPSULATE, objects.ENCAPSULATE_IN_SESSION,
      objects.DECAPSULATE, objects.DECAPSULATE_IN_SESSION,
      objects.SET, objects.DESTROY, objects.FIND,
      objects.SHOW, objects.SIGN, objects.SIGN_MANY, objects.VERIFY, objects.VERIFY_MANY,
      objects.ENCRYPT_MANY, objects.DECRYPT_MANY, objects.ENCRYPT, objects.DECRYPT, objects.STREAM, objects.USES,
      objects.RANDOM)),
    ("where the members' ports are, of a registered client", CLIENTS, (session.ENDPOINTS,)),
    ("its own end, and its renewal", set(HOLDERS), (session.LOGOUT, session.RENEW)),
]  # fmt: skip
ALLOWED: Final = {operation.name: who for _, who, operations in ROWS for operation in operations}


def test_every_operation_of_a_session_has_a_row() -> None:
    of_a_session = set(SERVED) - {
        each.name for each in (session.HELLO, session.LOGIN, session.REGISTER, session.CHANGE_PASSWORD)
    }
    assert set(ALLOWED) == set(RULES) == of_a_session


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_who_may_is_who_the_table_says(name: str) -> None:
    found = set()
    for who, holder in HOLDERS.items():
        try:
            permissions.check(name, RULES[name], KEYRING, holder)
        except errors.PermissionDenied:
            continue
        found.add(who)
    assert found == ALLOWED[name]


def test_a_keyrings_policy_is_changed_by_its_krso_alone() -> None:
    permissions.check_change(admin.KEYRING_POLICY.name, RULES[admin.KEYRING_POLICY.name], HOLDERS["krso"])
    for who in HOLDERS.keys() - {"krso"}:
        with pytest.raises(errors.PermissionDenied, match="KRSO"):
            permissions.check_change(admin.KEYRING_POLICY.name, RULES[admin.KEYRING_POLICY.name], HOLDERS[who])
