# Made of client/lnh/backups.py by `python tests/surface.py`: change that file, and run it.
"""Backups of a cluster: made, looked at, verified and fetched through a member, whose files they are.

async with await lnh.aio.admin.connect("hsm1:4400", "admin", password, fingerprint="SHA256:...") as administration:
job = await administration.backups.wait(await administration.backups.now())
await administration.backups.download(job.archive, Path("/mnt/elsewhere"))
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from lnh.aio.sessions import Session
from lnh.arguments import checked
from lnh_common.errors import (
    ArchiveInvalid,
    ArgumentInvalid,
    ClientUnknown,
    ClusterRestored,
    LnhError,
    NameTaken,
    NameUnknown,
)
from lnh_common.files import open_regular
from lnh_common.messages import backup as wire
from lnh_common.messages.backup import ArchiveList, ArchiveView, JobView, Schedule, ScheduleView
from lnh_common.messages.base import Empty
from lnh_common.wire import archives
from lnh_common.wire.archives import Outline

Tell = Callable[[JobView], None]
TellBytes = Callable[[int, int], None]

_LOOK_EVERY: Final = 0.2  # seconds


def _tell_nobody(_: JobView) -> None:
    pass


def _tell_no_bytes(_: int, __: int) -> None:
    pass


@checked
class Backups:
    """The archives of the member that a session of an appliance user goes to."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    async def now(self) -> JobView:
        """Begin to make an archive of the whole cluster as it is; `wait` for the job. Raises Busy, PermissionDenied."""
        return await self._session.ask(wire.NOW, Empty())

    async def verify(self, name: str) -> JobView:
        """Begin to read every byte of an archive, restoring nothing; `wait` for the job. Raises Busy, NameUnknown."""
        return await self._session.ask(wire.VERIFY, wire.ArchiveRef(name=name))

    async def job(self, id_: bytes = b"") -> JobView:
        """Show a job; an empty id names the last one of this member. Raises NameUnknown."""
        return await self._session.ask(wire.JOB, wire.JobRef(id=id_))

    async def wait(self, job: JobView, tell: Tell = _tell_nobody) -> JobView:
        """Wait until a job is done, telling how it stands; raises the error that it failed with."""
        while job.state == "running":
            tell(job)
            await asyncio.sleep(_LOOK_EVERY)
            job = await self.job(job.id)
        tell(job)
        if job.error is not None:
            raise LnhError.from_wire(list(job.error))
        return job

    async def list(self) -> ArchiveList:
        """List the archives of this member, oldest first."""
        return await self._session.ask(wire.LIST, Empty())

    async def show(self, name: str) -> ArchiveView:
        """Show what an archive says of itself; raises NameUnknown."""
        return await self._session.ask(wire.SHOW, wire.ArchiveRef(name=name))

    async def delete(self, name: str) -> None:
        """Remove an archive from the member's disk; raises NameUnknown."""
        await self._session.ask(wire.DELETE, wire.ArchiveRef(name=name))

    async def schedule(self, schedule: Schedule | None = None, *, off: bool = False) -> ScheduleView:
        """Set or end the schedule of backups, and show it with how it is kept.

        Args:
            schedule: the new one. The member fills in `since`, unless hours are to count from an earlier time.
            off: end it.

        Raises ArgumentInvalid, NameUnknown (no member has that name).
        """
        return await self._session.ask(wire.SCHEDULE, wire.SetSchedule(schedule=schedule, off=off))

    async def check(self, name: str) -> JobView:
        """Begin to look which credentials a restore would change; `wait` for the job. For an admin and the PO."""
        return await self._session.ask(wire.RESTORE, wire.Restore(name=name, check=True))

    async def restore(self, name: str) -> JobView:
        """Begin to put an archive's state in place of the cluster's; `wait_restored` for it. For an admin and the PO.

        Raises Busy, NameUnknown.
        """
        return await self._session.ask(wire.RESTORE, wire.Restore(name=name))

    async def wait_restored(self, job: JobView, tell: Tell = _tell_nobody) -> None:
        """Wait for a restore, at whose end this session dies; raises the error that it failed with."""
        try:
            await self.wait(job, tell)
        except (ClusterRestored, ClientUnknown):
            self._session.abandon()  # its last word: the session died with the old state

    async def upload(self, path: Path, tell: TellBytes = _tell_no_bytes) -> str:
        """Bring an archive to the member unless it has it; called again after an interruption, go on from there.

        It is for an admin and the PO. Returns the archive's name.

        Raises ArgumentInvalid (its name), ArchiveInvalid, NameTaken when the member has another archive of this name,
        OSError.
        """
        _check_name(path)
        with os.fdopen(open_regular(path, follow=True), "rb") as file:
            about = archives.check_copy(file)
            with suppress(NameUnknown):
                view = await self.show(path.name)
                if (view.id, view.hash) == (about.header.id, about.manifest.hash):
                    return path.name
                raise NameTaken(f"the member has another archive {path.name}")
            size = about.size
            have = (await self._session.ask(wire.WRITE, wire.WritePiece(name=path.name, offset=0, size=size))).have
            while have < size:
                tell(have, size)
                file.seek(have)
                data = file.read(wire.PIECE_BYTES)
                piece = wire.WritePiece(name=path.name, offset=have, size=size, data=data)
                have = (await self._session.ask(wire.WRITE, piece)).have
            tell(have, size)
        return path.name

    async def download(self, name: str, directory: Path, tell: TellBytes = _tell_no_bytes) -> Path:
        """Copy an archive into a directory here; called again after an interruption, go on from there.

        A partial copy of another archive of this name is fetched anew.

        Args:
            tell: called with the bytes that are here, and with all there are.

        Raises NameUnknown, NameTaken (another file has the name), ArchiveInvalid (it is damaged there, or changed
        meanwhile), OSError.
        """
        view = await self.show(name)
        target, part = directory / name, directory / f".{name}.part"
        if target.exists():
            if _is_copy(target, view):
                return target
            raise NameTaken(f"{target} is there and is not this archive")
        with os.fdopen(open_regular(part, os.O_RDWR | os.O_CREAT), "r+b") as file:
            had = file.seek(0, os.SEEK_END)
            try:
                try:
                    await self._fetch(file, view, tell)
                except ArchiveInvalid:
                    if not had:
                        raise
                    file.truncate(0)  # what was here already was of another one
                    await self._fetch(file, view, tell)
            except ArchiveInvalid as error:
                part.unlink()
                advice = {"advice": "run it again; if it stays so: lnh backup verify NAME"}
                raise ArchiveInvalid(f"what came is not the archive that the member showed: {error}", advice) from None
            os.fsync(file.fileno())
        part.replace(target)
        _sync(directory)
        return target

    async def _fetch(self, file: BinaryIO, view: ArchiveView, tell: TellBytes) -> None:
        """Add to a file the bytes of an archive that it lacks, and check the whole. Raises ArchiveInvalid, OSError."""
        at = file.seek(0, os.SEEK_END)
        if at > view.size:
            at = file.truncate(0)
            file.seek(0)
        while at < view.size:
            tell(at, view.size)
            piece = await self._session.ask(wire.READ, wire.PieceOf(name=view.name, offset=at))
            if not piece.data or piece.size != view.size:
                raise ArchiveInvalid(f"it has {piece.size} bytes now, and had {view.size}")
            file.write(piece.data)
            at += len(piece.data)
        tell(at, view.size)
        file.flush()
        check(archives.check_copy(file), view)


def _check_name(path: Path) -> None:
    if not wire.may_be_named(path.name):
        raise ArgumentInvalid(
            f"a member keeps no archive under the name {path.name!r}",
            {"advice": f"rename it: letters, digits, . _ -, and {wire.SUFFIX} at the end"},
        )


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(about: Outline, view: ArchiveView) -> None:
    """Raise ArchiveInvalid unless a file is the archive that a member showed."""
    if (about.header.id, about.manifest.hash, about.size) != (view.id, view.hash, view.size):
        raise ArchiveInvalid(f"what came is not {view.name}")


def _is_copy(path: Path, view: ArchiveView) -> bool:
    with suppress(ArchiveInvalid), os.fdopen(open_regular(path, follow=True), "rb") as file:
        check(archives.check_copy(file), view)
        return True
    return False


__all__ = ["ArchiveList", "ArchiveView", "Backups", "JobView", "Schedule", "ScheduleView"]
