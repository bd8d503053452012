"""Passes backup orders on to this member's backup service, once it is clear that their sender may.

Archives are files of one member, so an order is carried out by the backup service of the member that serves it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lnh_common.errors import LnhError, NameUnknown
from lnh_common.messages import backup, store
from lnh_common.messages.base import Empty, Operation, Q, R
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import RunRecord, ScheduleRecord
from lnh_services.hsm.worker.core import Handler, WorkerCore
from lnh_services.hsm.worker.request import Request


def _ask_here(operation: Operation[Q, R], message: Q) -> Steps[R]:
    """Ask this member's backup service, which knows its own archives however far the member is behind."""
    try:
        return (yield from ask(Peer.BACKUP, operation, message))
    except LnhError as error:
        raise error.for_good() from None


def _passes_on(to: Operation[Q, R]) -> Handler:
    """Make the handler that passes a request on as it is."""

    def handler(worker: WorkerCore, request: Request[Q]) -> Steps[R]:
        return (yield from _ask_here(to, request.message))

    return handler


def _orders(to: Operation[backup.Order, R]) -> Handler:
    """Make the handler that orders a job on an archive, or without a name on a new one."""

    def handler(worker: WorkerCore, request: Request[Empty | backup.ArchiveRef]) -> Steps[R]:
        message = request.message
        name = message.name if isinstance(message, backup.ArchiveRef) else ""
        return (yield from _ask_here(to, backup.Order(id=request.new_id(), name=name)))

    return handler


now: Final = _orders(backup.MAKE_ARCHIVE)
verify: Final = _orders(backup.VERIFY_ARCHIVE)
delete: Final = _orders(backup.DELETE_ARCHIVE)
job: Final = _passes_on(backup.ARCHIVE_JOB)
list_: Final = _passes_on(backup.LIST_ARCHIVES)
show: Final = _passes_on(backup.SHOW_ARCHIVE)
read: Final = _passes_on(backup.READ_ARCHIVE)
write: Final = _passes_on(backup.WRITE_ARCHIVE)


def schedule(worker: WorkerCore, request: Request[backup.SetSchedule]) -> Steps[backup.ScheduleView]:
    """Show the schedule of backups, or change it."""
    asked = request.message
    if (asked.schedule or asked.off) and not (yield from worker.acted_before(request)):
        yield from _change(worker, request, asked)
    kept, _ = yield from worker.versioned(ScheduleRecord, backup.SCHEDULE_ID, cached=False)
    run, _ = yield from worker.versioned(RunRecord, backup.RUN_ID, cached=False)
    known = run.run if run else None
    if kept is None or kept.schedule is None:
        return backup.ScheduleView(schedule=None, words="none", run=known)
    planned = yield from _ask_here(backup.CHECK_SCHEDULE, kept.schedule)
    status = yield from _ask_here(backup.STATUS, Empty())
    return backup.ScheduleView(
        schedule=kept.schedule, words=planned.words, next=planned.next, run=known, overdue=status.overdue
    )


def _change(worker: WorkerCore, request: Request[backup.SetSchedule], asked: backup.SetSchedule) -> Steps[None]:
    _, version = yield from worker.versioned(ScheduleRecord, backup.SCHEDULE_ID, cached=False)
    records = yield from worker.started()
    new = None
    if asked.schedule is not None and not asked.off:
        new = _begun(asked.schedule, int(worker.utc()))
        yield from _ask_here(backup.CHECK_SCHEDULE, new)
        status = yield from ask(Peer.STORE, store.STATUS, Empty())
        if new.member and new.member not in {each.id for each in status.members}:
            raise NameUnknown(f"no member {new.member.hex()}")
    # Ended, it is kept without content: a record made anew would have to have an older version.
    put = records.put(ScheduleRecord(schedule=new), backup.SCHEDULE_ID, version)
    yield from worker.commit(request, [put])


def _begun(asked: backup.Schedule, now: int) -> backup.Schedule:
    """Date the schedule as of now; hours may count from an earlier time, and one that came since is due at once."""
    earlier = asked.every is backup.Every.HOURS and 0 < asked.since <= now
    return asked if earlier else msgspec.structs.replace(asked, since=now)


def restore(worker: WorkerCore, request: Request[backup.Restore]) -> Steps[backup.JobView]:
    """Begin to put an archive's state in place of the cluster's, or to look what that would change."""
    asked, order = request.message, request.new_id()
    archive = request.approved.get("archive", b"")
    allow = backup.Allow(id=order, name=asked.name, check=asked.check, archive=archive)
    ticket = yield from ask(Peer.CORE, backup.ALLOW, allow)
    passed = backup.RestoreOrder(id=order, name=asked.name, check=asked.check, ticket=ticket.ticket)
    return (yield from _ask_here(backup.RESTORE_ARCHIVE, passed))
