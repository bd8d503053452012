"""Reads all items consistently for this member's backup service, in parts it asks for; writes go on meanwhile.

There is one reading at a time, because the WAL cannot be shortened while it lasts. A reading ends when the service does
not ask for its next part in time, or begins another: there is one backup service, which begins anew when it was killed
in the middle.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from lnh_common.errors import Busy, LnhError, NotPossible
from lnh_common.messages import store as messages
from lnh_services.store.disk.snapshots import Outgoing, SnapshotGone
from lnh_services.store.disk.sqlite import Disk

PATIENCE: Final = 60.0  # seconds without a question after which a reading is given up


class Readings:
    """The present reading, if there is one. Made and used within a running loop."""

    def __init__(self, disk: Disk) -> None:
        self._disk: Final = disk
        self._loop: Final = asyncio.get_running_loop()
        self._outgoing: Outgoing | None = None
        self._id = b""
        self._last: tuple[int, bytes] = (-1, b"")
        self._turn: Final = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> messages.Reading:
        """End the present reading, and begin another.

        Raises Busy while a snapshot is installed, SealBroken, StorageFailed.
        """
        async with self._turn:
            self.end()
            try:
                read = await asyncio.to_thread(self._disk.read_items)
            except SnapshotGone as error:
                raise Busy(f"the store's state is being replaced: {error}") from error
            self._outgoing, self._id, self._last = read.outgoing, os.urandom(16), (-1, b"")
            self._wait()
            return messages.Reading(id=self._id, index=read.after, items=read.counts, size=read.size)

    async def part(self, asked: messages.ReadPart) -> messages.Part:
        """Return a part; raises NotPossible when the reading is over, SealBroken, StorageFailed."""
        async with self._turn:
            if self._id != asked.id:
                raise NotPossible("this reading of the store is over")
            number, data = self._last
            if asked.number == number:
                return messages.Part(data=data)
            if self._outgoing is None or asked.number != number + 1:
                raise NotPossible("this reading of the store is over")
            try:
                data = await asyncio.to_thread(_next, self._outgoing)
            except (SnapshotGone, LnhError) as error:
                self.end()
                if isinstance(error, LnhError):
                    raise
                raise NotPossible(f"this reading of the store is over: {error}") from error
            self._last = (asked.number, data)
            if data:
                self._wait()
            else:
                self._release()
            return messages.Part(data=data)

    async def finish(self, asked: messages.ReadingRef) -> None:
        """End a reading that has no more questions."""
        async with self._turn:
            if self._id == asked.id:
                self.end()

    def end(self) -> None:
        """Give up the present reading, if there is one."""
        self._release()
        self._id = b""

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            self._disk.release(outgoing)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(PATIENCE, self.end)


def _next(outgoing: Outgoing) -> bytes:
    return outgoing.next() or b""
