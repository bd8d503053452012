"""Restores an archive: brings its rows, in order, to this member's HSM, which makes the cluster's new items of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from lnh_common import limits
from lnh_common.bus.client import Client
from lnh_common.errors import LnhError, OutcomeUnknown, Unreachable
from lnh_common.messages import backup
from lnh_common.messages.backup import Row
from lnh_services.archived import Grouping
from lnh_services.backup.files import Archives
from lnh_services.backup.jobs import Job
from lnh_services.backup.work import outlined, rows

PART_BYTES: Final = 384 * limits.KIB  # of rows in one message; a row by itself may be larger
PART_ROWS: Final = 4096
ROW_BYTES: Final = 200  # what a row weighs besides its head and body, at most
ASK_SECONDS: Final = 120.0
ABANDON_SECONDS: Final = 5.0
AGAIN: Final = 1.0
FINISH_TRIES: Final = 3

# All that a check looks at.
_CHECKED: Final = frozenset({"cluster", "credential", "keyring"})


class Restore:
    """Carries out restores for one member.

    Args:
        hsm: asks this member's.
    """

    def __init__(self, archives: Archives, hsm: Client) -> None:
        self._archives: Final = archives
        self._hsm: Final = hsm
        self._begins: Final = asyncio.Event()

    async def begin(self) -> None:
        """Have the HSM give up a restore that was begun before this service started: it would refuse another for it."""
        while not self._begins.is_set():
            try:
                await self._give_up(backup.NO_TICKET)
            except LnhError:
                await asyncio.sleep(AGAIN)
            else:
                self._begins.set()

    async def run(self, job: Job, order: backup.RestoreOrder) -> None:
        """Restore an archive, or with `check` look which credentials would differ then.

        Raises NameUnknown, ArchiveInvalid, StorageFailed, and what the HSM answers.
        """
        await self._begins.wait()
        with await asyncio.to_thread(self._archives.open, order.name) as file:
            job.tell(step="reading" if order.check else "laying aside")
            about = await asyncio.to_thread(outlined, file)
            opening = backup.Opening(header=about.header_bytes, manifest=about.manifest_bytes, seal=about.seal)
            begin = backup.BeginRestore(ticket=order.ticket, opening=opening)
            key = (await self._hsm.ask(backup.BEGIN_RESTORE, begin, timeout=ASK_SECONDS)).key
            job.tell(total=about.manifest.size)
            try:
                wanted = _CHECKED if order.check else None
                number = 0
                told: list[Grouping] = []
                parts = _parts(rows(job, file, about, key, told.append), wanted)
                while (part := await asyncio.to_thread(next, parts, None)) is not None:
                    sent = backup.RestoreRows(ticket=order.ticket, number=number, rows=tuple(part))
                    await self._hsm.ask(backup.RESTORE_ROWS, sent, timeout=ASK_SECONDS)
                    number += 1
                job.tell(step="finishing")
                done = await self._finish(order, told[0])
            except BaseException:
                with contextlib.suppress(LnhError):
                    await self._give_up(order.ticket)
                raise
        job.tell(changed=done.changed, changes=done.changes)

    async def _give_up(self, ticket: bytes) -> None:
        await self._hsm.ask(backup.ABANDON_RESTORE, backup.Ticket(ticket=ticket), timeout=ABANDON_SECONDS)

    async def _finish(self, order: backup.RestoreOrder, grouping: Grouping) -> backup.Restored:
        finish = backup.FinishRestore(ticket=order.ticket, groups=grouping.groups, placed=grouping.members)
        for left in reversed(range(FINISH_TRIES)):
            try:
                return await self._hsm.ask(backup.FINISH_RESTORE, finish, timeout=ASK_SECONDS)
            except (OutcomeUnknown, Unreachable):
                if not left:
                    raise
        raise AssertionError("the last try raises")


def _parts(batches: Iterator[list[Row]], wanted: frozenset[str] | None) -> Iterator[list[Row]]:
    """Yield the rows of these tables, or of all, in parts that fit a message; every batch is read in any case."""
    part: list[Row] = []
    size = 0
    for batch in batches:
        for row in batch:
            if wanted is not None and row[0] not in wanted:
                continue
            weight = sum(map(len, row[4:])) + ROW_BYTES
            if part and (size + weight > PART_BYTES or len(part) == PART_ROWS):
                yield part
                part, size = [], 0
            part.append(row)
            size += weight
    if part:
        yield part
