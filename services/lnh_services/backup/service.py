"""The backup service of one member: takes orders from its hsm, runs jobs, and tells how it stands.

It takes orders on a socket of the hsm's alone: an hsm worker has checked that their sender may, and recorded it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Final

from lnh_common.bus.client import Client
from lnh_common.bus.server import Call, Server
from lnh_common.errors import LnhError
from lnh_common.events import Log
from lnh_common.messages import backup
from lnh_common.messages.base import Empty
from lnh_services.backup import schedule
from lnh_services.backup.files import Archives
from lnh_services.backup.jobs import Jobs
from lnh_services.backup.keeping import Keeper
from lnh_services.backup.restore import Restore
from lnh_services.backup.work import Making
from lnh_services.serving import Member

TIDY_EVERY: Final = 3600.0  # seconds
IDLE: Final = 86_400.0  # seconds after which nobody goes on with a file that is half there

_log: Final = Log("backup")


class Backup:
    """The backup service of one member. Made and used within a running loop."""

    def __init__(self, member: Member) -> None:
        directory = member.directory
        self._name: Final = member.settings.name
        self._archives: Final = Archives(directory.backup)
        self._jobs: Final = Jobs()
        self._deleted: Final[deque[bytes]] = deque(maxlen=64)  # orders done, should they come again
        self._store: Final = Client(directory.store_for_services, name="backup.store")
        self._hsm_client: Final = Client(directory.hsm_for_services, name="backup.hsm")
        self._making: Final = Making(self._archives, self._store, self._hsm_client)
        self._membership: Final = Client(directory.membership_for_services, name="backup.membership")
        self._keeper: Final = Keeper(
            self._name,
            self._archives,
            self._jobs,
            self._making,
            store_=self._store,
            hsm=self._hsm_client,
            membership_=self._membership,
        )
        self._restoring: Final = Restore(self._archives, self._hsm_client)
        self._receiving: Final = asyncio.Lock()
        self._services: Final = Server(directory.backup_for_services, name="backup")
        self._services.serve(backup.STATUS, self._status)
        self._hsm: Final = Server(directory.backup_for_hsm, name="backup.hsm")
        self._hsm.serve(backup.STATUS, self._status)
        self._hsm.serve(backup.MAKE_ARCHIVE, self._make)
        self._hsm.serve(backup.VERIFY_ARCHIVE, self._verify)
        self._hsm.serve(backup.LIST_ARCHIVES, self._list)
        self._hsm.serve(backup.SHOW_ARCHIVE, self._show)
        self._hsm.serve(backup.ARCHIVE_JOB, self._job)
        self._hsm.serve(backup.READ_ARCHIVE, self._read)
        self._hsm.serve(backup.DELETE_ARCHIVE, self._delete)
        self._hsm.serve(backup.WRITE_ARCHIVE, self._write)
        self._hsm.serve(backup.RESTORE_ARCHIVE, self._restore)
        self._hsm.serve(backup.CHECK_SCHEDULE, self._check_schedule)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        try:
            await asyncio.to_thread(self._archives.tidy)
        except LnhError as error:
            _log.failure("archives cannot be reached", problem=str(error))
        self._services.start()
        self._hsm.start()
        tasks = [
            asyncio.create_task(each) for each in (self._keeper.keep(), self._keep_tidy(), self._restoring.begin())
        ]
        try:
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._jobs.close()
            await asyncio.gather(self._services.close(), self._hsm.close())
            await asyncio.gather(self._store.close(), self._hsm_client.close(), self._membership.close())

    async def _keep_tidy(self) -> None:
        """Remove uploads that were given up, and files that were left where no disk was mounted."""
        while True:
            await asyncio.sleep(TIDY_EVERY)
            with contextlib.suppress(LnhError):  # `status` tells what is wrong with the directory
                await asyncio.to_thread(self._archives.tidy, IDLE)

    # --- jobs

    async def _make(self, call: Call, order: backup.Order) -> backup.JobView:
        return self._jobs.begin(order.id, "make", "", self._making.make)

    async def _verify(self, call: Call, order: backup.Order) -> backup.JobView:
        await asyncio.to_thread(self._archives.view, order.name)
        return self._jobs.begin(order.id, "verify", order.name, lambda job: self._making.verify(job, order.name))

    async def _restore(self, call: Call, order: backup.RestoreOrder) -> backup.JobView:
        await asyncio.to_thread(self._archives.view, order.name)
        kind = "check" if order.check else "restore"
        return self._jobs.begin(order.id, kind, order.name, lambda job: self._restoring.run(job, order))

    async def _job(self, call: Call, asked: backup.JobRef) -> backup.JobView:
        return self._jobs.view(asked.id)

    # --- archives

    async def _list(self, call: Call, _: Empty) -> backup.ArchiveList:
        return backup.ArchiveList(member=self._name, archives=await asyncio.to_thread(self._archives.views))

    async def _show(self, call: Call, asked: backup.ArchiveRef) -> backup.ArchiveView:
        return await asyncio.to_thread(self._archives.view, asked.name)

    async def _read(self, call: Call, asked: backup.PieceOf) -> backup.Piece:
        return await asyncio.to_thread(self._archives.piece, asked.name, asked.offset, asked.length)

    async def _write(self, call: Call, piece: backup.WritePiece) -> backup.Written:
        async with self._receiving:
            have = await asyncio.to_thread(self._archives.receive, piece.name, piece.offset, piece.size, piece.data)
        return backup.Written(have=have)

    async def _delete(self, call: Call, order: backup.Order) -> Empty:
        if order.id not in self._deleted:
            await asyncio.to_thread(self._archives.remove, order.name)
            self._deleted.append(order.id)
        return Empty()

    async def _check_schedule(self, call: Call, asked: backup.Schedule) -> backup.Planned:
        schedule.check(asked)
        now = int(time.time())
        return backup.Planned(words=schedule.described(asked), next=schedule.after(schedule.begun(asked, now), now))

    # --- status

    async def _status(self, call: Call, request: Empty) -> backup.Status:
        running, kept = self._jobs.running, self._keeper.kept
        views: tuple[backup.ArchiveView, ...] = ()
        problem = ""
        try:
            found = await asyncio.to_thread(self._archives.views)
            views = tuple(view for view in found if not view.problem)
        except LnhError as error:
            problem = str(error)
        run = kept.run or backup.Run(slot=0, member=b"", name="", started=0)
        return backup.Status(
            schedule=schedule.described(kept.schedule),
            backups=len(views),
            bytes_on_disk=sum(view.size for view in views),
            newest=views[-1].name if views else "",
            problem=problem,
            next=kept.plan.next if kept.plan else 0,
            last=run.ended or run.started,
            last_member=run.name,
            last_problem=run.problem,
            overdue=kept.plan.overdue if kept.plan else False,
            running=running.kind if running else "",
        )
