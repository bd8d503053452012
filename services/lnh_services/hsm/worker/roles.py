"""Reads what an appliance role allows: a built-in role from the table of permissions, a custom one from its record."""

from __future__ import annotations

from lnh_common.errors import CredentialChanged
from lnh_common.messages.admin import Permission
from lnh_services.hsm.auth import permissions
from lnh_services.hsm.auth.permissions import BUILTIN_ROLES
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import RoleRecord, UserRecord, record_id
from lnh_services.hsm.worker.core import WorkerCore


def role_id(name: str) -> bytes:
    """Return the id of the record that keeps a custom role."""
    return record_id("role", name)


def permissions_of(worker: WorkerCore, role: str) -> Steps[frozenset[Permission] | None]:
    """Return the permissions of an appliance role, or None of one that does not exist."""
    if role in BUILTIN_ROLES:
        return BUILTIN_ROLES[role]
    record = yield from worker.record(RoleRecord, role_id(role))
    return permissions.named(record.permissions) if record is not None else None


def held_by(worker: WorkerCore, user: UserRecord) -> Steps[frozenset[Permission]]:
    """Return the permissions of an appliance user; raises CredentialChanged where its role does not exist."""
    held = yield from permissions_of(worker, user.role)
    if held is None:
        raise CredentialChanged(f"the role {user.role!r} of appliance user {user.name!r} does not exist")
    return held
