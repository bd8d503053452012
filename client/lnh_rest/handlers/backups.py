"""Backups: made, listed, fetched, brought and restored, through the member that answers, whose files they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from lnh_common.errors import ArchiveInvalid, ArgumentInvalid, LnhError
from lnh_common.messages import backup as wire
from lnh_common.messages.backup import ArchiveView, JobView, ScheduleView
from lnh_rest import problems
from lnh_rest.admin_shapes import ArchivePage, BackupJob, NewSchedule
from lnh_rest.base import Stream
from lnh_rest.paging import page
from lnh_rest.problems import Refused
from lnh_rest.route import Call
from lnh_rest.shapes import PageQuery
from lnh_rest.streams import pieces

_LENGTH: Final = {"advice": "send Content-Length, and not in chunks"}


async def list_backups(call: Call) -> ArchivePage:
    """List the archives of the member that answers."""
    query = call.given(PageQuery)
    listed = await call.user.backups.list()
    found, following, total = page(listed.archives, lambda each: each.name, query.cursor, query.limit)
    return ArchivePage(member=listed.member, items=tuple(found), total=total, next=following)


async def make_backup(call: Call) -> BackupJob:
    """Begin to make an archive of the whole cluster as it is."""
    return job(call, await call.user.backups.now())


async def show_backup(call: Call) -> ArchiveView:
    """Show what an archive says of itself."""
    return await call.user.backups.show(call.path["archive"])


async def delete_backup(call: Call) -> None:
    """Remove an archive from the member's disk."""
    await call.user.backups.delete(call.path["archive"])


async def verify_backup(call: Call) -> BackupJob:
    """Begin to read every byte of an archive, restoring nothing."""
    return job(call, await call.user.backups.verify(call.path["archive"]))


async def check_backup(call: Call) -> BackupJob:
    """Begin to look which credentials a restore would change; for an admin and the PO in one session."""
    return job(call, await call.user.backups.check(call.path["archive"]))


async def restore_backup(call: Call) -> BackupJob:
    """Begin to put an archive's state in place of the cluster's, at whose end every session dies, this one too."""
    return job(call, await call.user.backups.restore(call.path["archive"]))


async def show_backup_job(call: Call) -> BackupJob:
    """Show a job of the member that answers."""
    return job(call, await call.user.backups.job(call.id("job")))


async def show_last_backup_job(call: Call) -> BackupJob:
    """Show the last job of the member that answers."""
    return job(call, await call.user.backups.job())


async def show_schedule(call: Call) -> ScheduleView:
    """Show when backups are made by themselves, and how that is kept."""
    return await call.user.backups.schedule()


async def set_schedule(call: Call) -> ScheduleView:
    """Set when backups are made by themselves."""
    return await call.user.backups.schedule(call.given(NewSchedule).schedule)


async def end_schedule(call: Call) -> ScheduleView:
    """Have no backups made by themselves any more."""
    return await call.user.backups.schedule(off=True)


async def download_backup(call: Call) -> Stream:
    """Fetch an archive, all of it or from a byte on."""
    view = await call.user.backups.show(call.path["archive"])
    if view.problem:
        raise ArchiveInvalid(f"{view.name}: {view.problem}")
    if call.begin > view.size:
        error = ArgumentInvalid(f"Range: begins at {call.begin}, and the archive has {view.size} bytes")
        raise Refused(error, 416, {"Content-Range": f"bytes */{view.size}"})
    return Stream(_archive(call, view), view.size - call.begin, view.hash.hex(), view.name, call.begin)


async def _archive(call: Call, view: ArchiveView) -> AsyncIterator[bytes]:
    at = call.begin
    while at < view.size:
        piece = await call.user.ask(wire.READ, wire.PieceOf(name=view.name, offset=at))
        if not piece.data or piece.size != view.size:
            raise ArchiveInvalid(f"it has {piece.size} bytes now, and had {view.size}")
        yield piece.data
        at += len(piece.data)


async def upload_backup(call: Call) -> ArchiveView:
    """Bring an archive to the member that answers; sent again after an interruption, it goes on from there."""
    assert call.parts is not None, "the route's row says that it takes bytes"
    name = call.path["archive"]
    if not wire.may_be_named(name):
        advice = {"advice": f"letters, digits, . _ -, and {wire.SUFFIX} at the end"}
        raise ArgumentInvalid("a member keeps no archive under this name", advice)
    if not call.length:
        raise Refused(ArgumentInvalid("an archive says its length beforehand", _LENGTH), 411)
    have = (await call.user.ask(wire.WRITE, wire.WritePiece(name=name, offset=0, size=call.length))).have
    at = 0
    async for data in pieces(call.parts, wire.PIECE_BYTES):
        lacking = data[max(0, have - at) :]
        at += len(data)
        if lacking:
            piece = wire.WritePiece(name=name, offset=at - len(lacking), size=call.length, data=lacking)
            have = (await call.user.ask(wire.WRITE, piece)).have
    return await call.user.backups.show(name)


def job(call: Call, view: JobView) -> BackupJob:
    """Describe a job, with the problem that it failed with in the form of every refusal."""
    problem = None
    if view.error is not None:
        problem = problems.problem(Refused(LnhError.from_wire(list(view.error))), call.request)
    return BackupJob(
        id=view.id.hex(),
        kind=view.kind,
        state=view.state,
        step=view.step,
        archive=view.archive,
        done=view.done,
        total=view.total,
        problem=problem,
        changed=view.changed,
        changes=view.changes,
    )
