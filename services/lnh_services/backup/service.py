"""Tells how this member is backed up: no schedule can be set yet, so what there is are the files in its directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from lnh_common.bus.server import Call, Server
from lnh_common.messages import backup
from lnh_common.messages.base import Empty
from lnh_services.serving import Member


class Backup:
    """Made and used within a running loop."""

    def __init__(self, member: Member) -> None:
        self._archives: Final = member.directory.backup
        self._server: Final = Server(member.directory.backup_for_services, name="backup")
        self._server.serve(backup.STATUS, self._status)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self._server.start()
        try:
            await stop.wait()
        finally:
            await self._server.close()

    async def _status(self, call: Call, request: Empty) -> backup.Status:
        return status(self._archives)


def status(archives: Path) -> backup.Status:
    """What a directory of archives holds."""
    try:
        files = [(entry.name, entry.stat()) for entry in archives.iterdir() if entry.is_file()]
    except OSError as error:
        return backup.Status(schedule="none", backups=0, bytes_on_disk=0, problem=f"{archives}: {error.strerror}")
    newest = max(files, key=lambda file: file[1].st_mtime, default=None)
    return backup.Status(
        schedule="none",
        backups=len(files),
        bytes_on_disk=sum(found.st_size for _, found in files),
        newest="" if newest is None else newest[0],
    )
