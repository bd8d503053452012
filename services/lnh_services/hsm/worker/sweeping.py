"""Erases records that count nothing any more: failed logins at names that nobody has, and logouts.

A client that fails to log in leaves records, at names that do not exist too, and so does a client that logs out. Their
number has a bound: a client has so many places for names (`auth/online_attempts.py`) and ended sessions, and records
that are over are erased here. A worker of each read-write member does it now and then, in commits of a few records;
records that changed meanwhile stay.

    of a name, once nothing counts any more    its place is free; if it never was anybody's, its locks are erased
    of a session, once no token of it is good  its logout is erased, and its place is free

**The locks of a holder that exists stay.** Only their versions tell that a store serves older ones, and made anew they
would begin at 1. Nothing depends on those of a name that nobody has. When a place is free must not depend on whether
the name has a holder: by their places a client could tell.

**Of a session that is over** no token is taken any more, so nobody looks for its logout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from lnh_common import limits
from lnh_common.messages.store import Change, Delete, Item, Scan, Scanned
from lnh_services.hsm import answers
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import (
    TABLES,
    AttemptsRecord,
    ClientRecord,
    EndedRecord,
    HolderLockRecord,
    LockRecord,
    LogoutRecord,
    Record,
    TriedRecord,
)
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.passwords import Pair, read_locks

R = TypeVar("R", bound=Record)

EVERY: Final = limits.SWEEP_SECONDS
_MARGIN: Final = limits.ISSUED_AT_TOLERANCE  # a member whose clock is further behind serves no client's request
_PAGE: Final = 256


def sweep(worker: WorkerCore) -> Steps[None]:
    """Erase records that count nothing any more; raises MemberReadOnly."""
    yield from _sweep_client(worker, online_attempts.UNREGISTERED)
    after, more = b"", True
    while more:
        page = yield from worker.page(ClientRecord, after=after)
        for item, _ in page.found:
            yield from _sweep_client(worker, item.key.id)
        after, more = page.last, page.more
    yield from _erase(worker, LogoutRecord, b"", lambda logout: logout.until)


def _sweep_client(worker: WorkerCore, client: bytes) -> Steps[None]:
    yield from _erase(worker, EndedRecord, client, lambda ended: ended.until)
    scan = Scan(table=TABLES[TriedRecord], scope=client, limit=_PAGE)
    while True:
        page = yield from worker.genuine(answers.scan(scan))
        for item in page.items:
            yield from _sweep_name(worker, Pair(client, item.key.id))
        if not page.more:
            return
        scan = msgspec.structs.replace(scan, after=page.items[-1].key.id)


def _sweep_name(worker: WorkerCore, pair: Pair) -> Steps[None]:
    """Free a client's place for a name that counts nothing any more."""
    locks, versions = yield from read_locks(worker, pair)
    if not locks.is_over(int(worker.utc()) - _MARGIN):
        return
    records = yield from worker.started()
    client, scope, _ = pair
    changes: list[Change] = [Delete(key=records.key_of(TriedRecord, scope, client))]

    def erase(kind: type[Record], record_id: bytes, version: int) -> None:
        if version:
            changes.append(Delete(key=records.key_of(kind, record_id, scope), expected=version))

    if locks.of_pair.lasting:
        changes.append(
            records.put(msgspec.structs.replace(locks.of_pair, tried=False), client, versions.of_pair, scope=scope)
        )
    else:
        erase(LockRecord, client, versions.pair)
        erase(AttemptsRecord, client, versions.of_pair)
    if not locks.of_holder.lasting:
        erase(HolderLockRecord, online_attempts.HOLDER, versions.holder)
        erase(AttemptsRecord, online_attempts.HOLDER, versions.of_holder)
    yield from worker.own_commit(*changes, lasting=locks.of_pair.lasting)


def _erase(worker: WorkerCore, kind: type[R], scope: bytes, until: Callable[[R], int]) -> Steps[None]:
    """Erase the records of one scope that are over.

    Args:
        until: the last UTC second at which a record counts.
    """
    records = yield from worker.started()
    scan = Scan(table=TABLES[kind], scope=scope, limit=_PAGE, body=True)

    def read() -> Steps[tuple[Scanned, list[Item]]]:
        page = yield from answers.scan(scan)
        return page, [item for item in page.items if until(records.read(kind, item)) < worker.utc() - _MARGIN]

    while True:
        page, over = yield from worker.genuine(read(), records)
        if over:
            yield from worker.own_commit(*(Delete(key=item.key, expected=item.version) for item in over))
        if not page.more:
            return
        scan = msgspec.structs.replace(scan, after=page.items[-1].key.id)
