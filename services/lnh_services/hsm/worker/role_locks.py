"""Tells which roles of a keyring are locked, for whom and until when: what an admin asks when a login is refused."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from lnh_common.messages.admin import Permission, RoleLock
from lnh_common.messages.session import Role
from lnh_common.messages.store import Item
from lnh_services.hsm import answers
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import ClientRecord
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.lasting_locks import stays_locked

_A_CLIENT: Final = "a client"


def locks_of(worker: WorkerCore, role: Role, keyring: bytes, shown: frozenset[Permission]) -> Steps[list[RoleLock]]:
    """List the locks of a role of a keyring that hold now: first those of everybody, then those of single clients.

    Args:
        shown: what who asks may; clients are named to those who may see them.
    """
    found = [RoleLock(role=role)] if (yield from stays_locked(worker, role, keyring=keyring)) else []
    records = yield from worker.started()
    now = int(worker.utc())
    scope = online_attempts.scope(records, role, "", keyring)
    items: list[Item] = []
    for table in online_attempts.CLEARED:
        scan, more = online_attempts.of_scope(table, scope), True
        while more:
            page = yield from worker.genuine(answers.scan(scan), records)
            items += page.items
            more = page.more
            if more:
                scan = replace(scan, after=page.items[-1].key.id)
    locks = online_attempts.locks_in(records, items)
    over_all = locks.pop(online_attempts.HOLDER, online_attempts.Locks())
    if until := online_attempts.delayed_until(over_all, now):
        found.append(RoleLock(role=role, until=until))
    for client in sorted(locks):
        if until := online_attempts.locked_until(locks[client], now):
            name = (yield from _name(worker, client)) if Permission.CLIENTS in shown else _A_CLIENT
            found.append(RoleLock(role=role, client=name, until=until))
    return found


def _name(worker: WorkerCore, client: bytes) -> Steps[str]:
    record = yield from worker.record(ClientRecord, client)
    return record.name if record is not None else client.hex()
