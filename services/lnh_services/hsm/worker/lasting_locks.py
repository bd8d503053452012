"""Tells who stays locked out until somebody unlocks him, as policy `lock_after` has it.

A holder is locked once as many attempts ended wrong, since the last right one, as the policy in force says; another
policy locks and unlocks at once, and nothing else is kept. `auth/online_attempts.py` counts.

**The last way in stays open.** Only who may log in unlocks others. So an admin is locked only while another admin is
not: of all admins one can always try, under the locks that end by themselves. That is looked up when it matters, and no
two locks at once can get past it. Everybody else is unlocked by an admin, and any admin by the SO at a local console
(`lnh appliance reset-admin`).
"""

from __future__ import annotations

from lnh_common.messages.session import Role
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.auth.permissions import ADMIN
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import AttemptsRecord, UserRecord, record_id
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.policies import effective_policy


def stays_locked(worker: WorkerCore, role: Role, name: str = "", keyring: bytes = b"") -> Steps[bool]:
    """Tell whether a role's holder, who need not exist, is locked until somebody unlocks it."""
    policy = yield from effective_policy(worker, keyring)
    if not policy.lock_after:
        return False
    if (yield from _failed(worker, role, name, keyring)) < policy.lock_after:
        return False
    return role is not Role.USER or not (yield from _is_last_way_in(worker, name, policy.lock_after))


def _failed(worker: WorkerCore, role: Role, name: str, keyring: bytes) -> Steps[int]:
    records = yield from worker.started()
    scope = online_attempts.scope(records, role, name, keyring)
    attempts, _ = yield from worker.versioned(
        AttemptsRecord, online_attempts.HOLDER, cached=False, scope=scope, lasts=lambda found: found.lasting
    )
    return attempts.failed if attempts is not None else 0


def _is_last_way_in(worker: WorkerCore, name: str, limit: int) -> Steps[bool]:
    user = yield from worker.record(UserRecord, record_id("user", name))
    if user is None or user.role != ADMIN:
        return False
    for other in (yield from worker.scan_all(UserRecord)):
        if other.role == ADMIN and other.name != name:
            failed = yield from _failed(worker, Role.USER, other.name, b"")
            if failed < limit:
                return False
    return True
